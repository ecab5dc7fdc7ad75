"""Posteriors of 100 to 2,000 latents: `vi.fit` with its defaults against NumPyro's
AutoMultivariateNormal, BlackJAX's multi-path Pathfinder, and NUTS in the same wall time.

    python -m benchmarks.large truth --truth=DIR [--only=NAME,NAME]     # long NUTS, once; hours
    python -m benchmarks.large run --truth=DIR --json=ROWS [--only=NAME,NAME]
    python -m benchmarks.large table --json=ROWS --write        # README.md

DIR lies outside the repository. In float64 (JAX_ENABLE_X64=1 is set). The error of a side is that
of its worst mean over all sites, in standard deviations of the truth. Each side is a process of its
own; seconds are from the call, compilation included. Seconds of the processor are beside those of
the clock, which other work on the machine disturbs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.large_models import MODELS

SVI_STEPS = 20_000
SVI_RATE = 5e-3  # of its Adam
NUM_PATHS = 8  # of Pathfinder
NUM_SAMPLES = 4000
WARMUP = 300  # of NUTS in the same time
BLOCK = 50  # samples between two looks at the clock
TRUTH_CHAINS = 4
TRUTH_SAMPLES = 2000
TRUTH_ACCEPTANCE = 0.95
SIDES = ("vi", "autoguide", "pathfinder", "nuts")
TITLES = ("`vi.fit`", "AutoMultivariateNormal", "multi-path Pathfinder", "NUTS, same time")
BLOCK_NAME = "large"


def moments(sites: dict[str, Any]) -> dict[str, Any]:
    """Means of sites, as JSON takes them."""
    return {name: np.asarray(x).mean(0).ravel().tolist() for name, x in sites.items()}


def run_vi(model: Any, limit: float) -> dict[str, Any]:
    """`vi.fit` with its defaults; a method that the caller chose is never used."""
    import jax

    import vi_jax as vi

    del limit
    result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(model))
    mean = result.moments()["mean"]
    return {
        "mean": {name: np.ravel(value).tolist() for name, value in mean.items()},
        "verdict": result.diagnostics.verdict,
        "method": result.method,
        "elbo": result.diagnostics.elbo,
        "latents": result.target.size,
    }


def run_autoguide(model: Any, limit: float) -> dict[str, Any]:
    """NumPyro's full-rank Gaussian by 20,000 steps of Adam."""
    import jax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal
    from numpyro.optim import Adam

    del limit
    guide = AutoMultivariateNormal(model)
    svi = SVI(model, guide, Adam(SVI_RATE), Trace_ELBO())
    found = svi.run(jax.random.key(0), SVI_STEPS, progress_bar=False)
    shape = (NUM_SAMPLES,)
    sites = guide.sample_posterior(jax.random.key(1), found.params, sample_shape=shape)
    return {"mean": moments(sites)}


def run_pathfinder(model: Any, limit: float) -> dict[str, Any]:
    """BlackJAX's Pathfinder from eight starts, resampled by importance weights of all paths."""
    import blackjax
    import jax

    import vi_jax as vi

    del limit
    target = vi.targets.from_numpyro(model)
    key_start, key_paths, key_draws, key_keep = jax.random.split(jax.random.key(0), 4)
    starts = jax.random.uniform(key_start, (NUM_PATHS, target.size), minval=-2.0, maxval=2.0)
    each = NUM_SAMPLES // NUM_PATHS

    def path(keys: Any) -> tuple[Any, Any]:
        key_path, key_draw, start = keys
        approximate = blackjax.vi.pathfinder.approximate
        state, _ = approximate(key_path, target.log_density, start)
        return blackjax.vi.pathfinder.sample(key_draw, state, each)

    paths = jax.random.split(key_paths, NUM_PATHS)
    draws = jax.random.split(key_draws, NUM_PATHS)
    u, log_q = jax.jit(lambda keys: jax.lax.map(path, keys))((paths, draws, starts))
    u = u.reshape(-1, target.size)
    log_p = jax.jit(lambda u: jax.lax.map(target.log_density, u, batch_size=32))(u)
    log_w = np.nan_to_num(np.asarray(log_p - log_q.reshape(-1)), nan=-np.inf)
    kept = jax.random.categorical(key_keep, log_w, shape=(NUM_SAMPLES,))
    return {"mean": moments(jax.jit(jax.vmap(target.constrain))(u[kept]))}


def run_nuts(model: Any, limit: float) -> dict[str, Any]:
    """NumPyro's NUTS, one chain, for `limit` seconds; without samples where the warm-up took them
    all.
    """
    import jax
    from numpyro.infer import MCMC, NUTS

    began = time.perf_counter()
    chain = MCMC(NUTS(model), num_warmup=WARMUP, num_samples=BLOCK, progress_bar=False)
    chain.warmup(jax.random.key(0))
    kept = []
    while time.perf_counter() - began < limit:
        chain.run(chain.post_warmup_state.rng_key)
        kept.append(chain.get_samples())
        chain.post_warmup_state = chain.last_state
    if not kept:
        return {"mean": {}}
    names = kept[0]
    return {"mean": moments({name: np.concatenate([s[name] for s in kept]) for name in names})}


RUNS = dict(zip(SIDES, (run_vi, run_autoguide, run_pathfinder, run_nuts), strict=True))


def one(name: str, side: str, limit: float) -> dict[str, Any]:
    """One side on one model, in this process."""
    model = MODELS[name]()
    clock = time.perf_counter()
    processor = time.process_time()
    found = RUNS[side](model, limit)
    seconds = time.perf_counter() - clock
    return found | {"seconds": seconds, "processor": time.process_time() - processor}


def in_a_process(name: str, side: str, limit: float) -> dict[str, Any]:
    """The same, in a process of its own.

    Raises:
      RuntimeError: it failed; with its last line.
    """
    command = [sys.executable, "-m", "benchmarks.large", "one", f"--only={name}"]
    command += [f"--side={side}", f"--limit={limit}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{side} on {name}: {last}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def write_truth(name: str, folder: Path) -> None:
    """Means and standard deviations by long NUTS, and its largest split R-hat."""
    import jax
    from numpyro.diagnostics import split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(MODELS[name](), target_accept_prob=TRUTH_ACCEPTANCE)
    chains = MCMC(
        kernel,
        num_warmup=TRUTH_SAMPLES // 2,
        num_samples=TRUTH_SAMPLES,
        num_chains=TRUTH_CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    chains.run(jax.random.key(1))
    samples = {k: np.asarray(v) for k, v in chains.get_samples(group_by_chain=True).items()}
    r_hat = max(float(np.max(split_gelman_rubin(x))) for x in samples.values())
    flat = {k: x.reshape(-1, *x.shape[2:]) for k, x in samples.items()}
    found = {
        "mean": moments(flat),
        "sd": {k: x.std(0).ravel().tolist() for k, x in flat.items()},
        "r_hat": r_hat,
    }
    folder.mkdir(parents=True, exist_ok=True)
    truth_path(folder, name).write_text(json.dumps(found))
    report.say(f"{name}: largest R-hat {r_hat:.3f}")


def truth_path(folder: Path, name: str) -> Path:
    """Where a model's truth lies."""
    return folder / f"{name.replace(' ', '_')}.json"


def error(found: dict[str, Any], truth: dict[str, Any]) -> float:
    """Of the worst mean, in standard deviations of the truth; inf without means."""
    if not found["mean"]:
        return float("inf")
    worst = 0.0
    for site, mean in truth["mean"].items():
        sd = np.maximum(truth["sd"][site], 1e-12)
        gap = np.abs(np.array(found["mean"][site]) - np.array(mean)) / sd
        worst = max(worst, float(np.max(np.nan_to_num(gap, nan=np.inf))))
    return worst


def compare(name: str, folder: Path) -> dict[str, Any]:
    """All sides on one model."""
    path = truth_path(folder, name)
    truth = json.loads(path.read_text()) if path.exists() else None
    row: dict[str, Any] = {"model": name, "r_hat": truth["r_hat"] if truth else None}
    limit = 0.0
    for side in SIDES:
        report.say(f"{name}: {side}")
        try:
            found = in_a_process(name, side, limit)
        except RuntimeError as failure:
            row[side] = {"failed": str(failure)}
            continue
        if side == "vi":
            limit = found["seconds"]
        off = error(found, truth) if truth else None
        row[side] = {k: v for k, v in found.items() if k != "mean"} | {"error": off}
    return row


def _cell(row: dict[str, Any], side: str) -> str:
    found = row[side]
    if "failed" in found:
        return "failed"
    if found["error"] is None:
        return "no truth"
    if np.isinf(found["error"]):
        return "no samples"
    return f"{found['error']:.2f} ({found['seconds']:.0f} s)"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; models without a row were not run."""
    head = ("model", "latents", "method: verdict", *TITLES, "truth's R-hat")
    by_name = {row["model"]: row for row in rows}
    lines = []
    for name in MODELS:
        row = by_name.get(name)
        if row is None:
            lines.append((name, *["not run"] * (len(head) - 1)))
            continue
        vi = row["vi"]
        r_hat = "none" if row["r_hat"] is None else f"{row['r_hat']:.3f}"
        how = f"{vi.get('method', '')}: {vi.get('verdict', 'failed')}"
        sides = [_cell(row, side) for side in SIDES]
        lines.append((name, f"{vi.get('latents', 0):,}", how, *sides, r_hat))
    return report.markdown_table(head, lines)


def main() -> None:
    kind = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("what", choices=("truth", "run", "table", "one"))
    parser.add_argument("--truth", type=Path, help="folder of the truths, outside the repository")
    parser.add_argument("--only", default=",".join(MODELS), help="names of models, by commas")
    parser.add_argument("--json", type=Path, help="rows; those of models run before are replaced")
    parser.add_argument("--write", action="store_true", help="into README.md")
    parser.add_argument("--side", choices=SIDES, help="of `one`")
    parser.add_argument("--limit", type=float, default=0.0, help="seconds of NUTS, of `one`")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := set(names) - set(MODELS):
        parser.error(f"no such models: {', '.join(sorted(unknown))}; see {', '.join(MODELS)}.")
    if args.what in ("truth", "run") and args.truth is None:
        parser.error(f"{args.what} needs --truth=DIR, a folder outside the repository.")
    if args.what == "one":
        print(json.dumps(one(names[0], args.side, args.limit)))
    elif args.what == "truth":
        for name in names:
            write_truth(name, args.truth)
    else:
        _rows(args, names)


def _rows(args: argparse.Namespace, names: list[str]) -> None:
    known = args.json is not None and args.json.exists()
    rows = json.loads(args.json.read_text()) if known else []
    if args.what == "run":
        for name in names:
            rows = [row for row in rows if row["model"] != name] + [compare(name, args.truth)]
            if args.json is not None:
                args.json.write_text(json.dumps(rows))
    text = table(rows)
    print(text)
    if args.write:
        report.write_block(BLOCK_NAME, text)


if __name__ == "__main__":
    os.environ["JAX_ENABLE_X64"] = "1"
    main()
