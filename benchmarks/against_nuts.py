"""Wall time from the call to the verdict, `vi.fit` against NumPyro's NUTS, compilation included.

    python -m benchmarks.against_nuts --root=DIR --json=all.json --write
    python -m benchmarks.against_nuts --root=DIR --only=arK,nes --json=part.json
    python -m benchmarks.against_nuts --rows=one.json,two.json --write     # tables of saved rows

DIR is a clone of stan-dev/posteriordb. About 20 minutes on 2 quiet cores. NUTS runs one chain of
1,000 + 1,000. Each timing is of a process
of its own that has imported jax, numpyro and vi_jax and made the model; the two alternate. Seconds
of the processor are beside those of the clock, which other work on the machine disturbs.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.against_nuts_table import MAX_ERROR, Row, each, summary
from benchmarks.posteriordb_rows import add_selection, read_rows, selected

NUM_WARMUP = 1000
NUM_SAMPLES = 1000
LONG_CHAINS = 8  # times NUM_SAMPLES: the reference where there are no reference draws
TIMEOUT = 900  # seconds of one process
SIDES = ("vi", "nuts")


def model_of(name: str, root: str) -> Any:
    """The NumPyro model by its name."""
    from benchmarks.against_nuts_models import MODELS
    from experiments import posteriordb

    return MODELS[name]() if name in MODELS else posteriordb.load(name, Path(root)).model


def run_vi(name: str, root: str) -> dict[str, Any]:
    """`vi.fit` with its defaults, in this process."""
    import jax

    import vi_jax as vi

    model = model_of(name, root)
    clock = Clock()
    target = vi.targets.from_numpyro(model)
    result = vi.fit(jax.random.key(0), target)
    verdict = result.diagnostics.verdict
    spent = clock.read()
    moments = result.moments()
    return spent | {
        "compile_seconds": result.compile_seconds,
        "method": result.method,
        "verdict": verdict,
        "evaluations": result.evaluations,
        "mean": {site: np.asarray(m).tolist() for site, m in moments["mean"].items()},
    }


def run_nuts(name: str, root: str, *, times: int = 1, seed: int = 0) -> dict[str, Any]:
    """NumPyro's NUTS, in this process."""
    import jax
    from numpyro.infer import MCMC, NUTS

    model = model_of(name, root)
    clock = Clock()
    chains = MCMC(
        NUTS(model),
        num_warmup=NUM_WARMUP,
        num_samples=times * NUM_SAMPLES,
        num_chains=1,
        progress_bar=False,
    )
    chains.run(jax.random.key(seed))
    samples = jax.block_until_ready(chains.get_samples())
    spent = clock.read()
    return spent | {
        "mean": {site: np.asarray(x).mean(0).tolist() for site, x in samples.items()},
        "sd": {site: np.asarray(x).std(0).tolist() for site, x in samples.items()},
    }


class Clock:
    """Seconds by the clock, and of the processor, since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._processor = time.process_time()

    def read(self) -> dict[str, float]:
        """Both."""
        return {
            "seconds": time.perf_counter() - self._began,
            "processor": time.process_time() - self._processor,
        }


def in_a_process(name: str, side: str, root: str) -> dict[str, Any]:
    """One side's numbers, from a process of its own.

    Raises:
      RuntimeError: it failed; with its last line.
    """
    command = [sys.executable, "-m", "benchmarks.against_nuts", f"--root={root}"]
    command += [f"--one={name}", f"--side={side}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{side} on {name}: {last}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def reference(name: str, root: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Means, standard deviations, and what brings a dict of means into their order."""
    from benchmarks.against_nuts_models import MODELS
    from experiments import posteriordb

    if name in MODELS:
        long = in_a_process(name, "long", root)
        sites = sorted(long["mean"])

        def flatten(mean: dict[str, Any]) -> np.ndarray:
            return np.concatenate([np.ravel(mean[site]) for site in sites])

        return flatten(long["mean"]), flatten(long["sd"]), flatten
    posterior = posteriordb.load(name, Path(root))

    def of_draws(mean: dict[str, Any]) -> np.ndarray:
        return np.asarray(posterior.flatten({k: np.asarray(v)[None] for k, v in mean.items()}))[0]

    return np.asarray(posterior.mean), np.asarray(posterior.sd), of_draws


def compare(name: str, root: str) -> Row:
    """Both sides on one posterior, one after the other."""
    vi = in_a_process(name, "vi", root)
    nuts = in_a_process(name, "nuts", root)
    mean, sd, flatten = reference(name, root)
    known = np.isfinite(sd) & (sd > 0)

    def wrong(found: dict[str, Any]) -> int:
        error = np.abs(flatten(found["mean"]) - mean)[known] / sd[known]
        return int(np.sum(~(error <= MAX_ERROR)))

    return Row(
        name,
        vi["seconds"],
        nuts["seconds"],
        vi["processor"],
        nuts["processor"],
        vi["compile_seconds"],
        wrong(vi),
        wrong(nuts),
        int(known.sum()),
        vi["method"],
        vi["verdict"],
        vi["evaluations"],
    )


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser(__doc__.splitlines()[0])
    add_selection(parser)
    parser.add_argument("--one", default="", help="a posterior whose numbers this process prints")
    parser.add_argument("--side", default="vi", choices=(*SIDES, "long"), help="of --one")
    return parser.parse_args()


def all_names(flags: argparse.Namespace) -> list[str]:
    """The three models, and the posteriors of posteriordb, that the flags choose."""
    from benchmarks.against_nuts_models import MODELS

    asked = [part for part in flags.only.split(",") if part]
    mine = [name for name in MODELS if not asked or any(part in name for part in asked)]
    return [*mine, *selected(flags)]


def run_all(flags: argparse.Namespace) -> list[Row]:
    """Both on every posterior that the flags choose; one that fails is reported and left out."""
    rows: list[Row] = []
    for name in all_names(flags):
        try:
            rows.append(compare(name, flags.root))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            report.say(f"{name}: FAILED, not in the table: {error}")
            continue
        r = rows[-1]
        report.say(
            f"{name:45s} {r.seconds:6.1f} s to {r.nuts_seconds:6.1f} ({r.ratio:.2f}); processor "
            f"{r.processor:6.1f} to {r.nuts_processor:6.1f} ({r.processor_ratio:.2f}); wrong "
            f"{r.wrong} to {r.nuts_wrong} of {r.num_means}; {r.method}, {r.verdict}"
        )
        if flags.json:
            report.write_json(flags.json, [row._asdict() for row in rows])
    return rows


def print_one(flags: argparse.Namespace) -> None:
    """The numbers of one side on one posterior, as a line of JSON."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if flags.side == "vi":
        found = run_vi(flags.one, flags.root)
    elif flags.side == "nuts":
        found = run_nuts(flags.one, flags.root)
    else:
        found = run_nuts(flags.one, flags.root, times=LONG_CHAINS, seed=1)
    print(json.dumps(found))


def main() -> None:
    """The command."""
    flags = parse_flags()
    if flags.one:
        print_one(flags)
        return
    rows = read_rows(flags.rows, Row) if flags.rows else run_all(flags)
    flags.only = ""
    flags.part = "1/1"
    done = {row.posterior for row in rows}
    not_run = [name for name in all_names(flags) if name not in done]
    text = summary(rows, len(not_run))
    numbers = [row._asdict() for row in rows]
    report.finish("against_nuts", text, flags, numbers, each(rows, not_run))


if __name__ == "__main__":
    main()
