"""vi.fit and its peers on the posteriors of posteriordb that have reference draws.

    python -m benchmarks.posteriordb --root=DIR          # DIR: a clone of stan-dev/posteriordb
    python -m benchmarks.posteriordb --root=DIR --write  # and put the tables into the README
    python -m benchmarks.posteriordb --root=DIR --only=nes --methods=default,pathfinder --peers=
    python -m benchmarks.posteriordb --root=DIR --part=2/6 --json=part2.json  # every sixth of them
    python -m benchmarks.posteriordb --rows=part1.json,part2.json --write  # tables of saved rows

About 15 minutes on 2 cores.

One default configuration of each method for all posteriors, float64 for all. NumPyro's SVI runs
until its worst mean error is that of `vi.fit`'s default on the same posterior, or until it has
taken as many seconds, compile included in both.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import report

NUM_DRAWS = 4000
SVI_BLOCK = 500  # steps between two looks at NumPyro's moments
SVI_STEP = 0.01  # of its Adam
PYMC_STEPS = 10_000  # its default, one draw each
RESPONSE = "+linear_response"  # after a method's name


class Row(NamedTuple):
    """One method on one posterior."""

    posterior: str
    method: str
    mean_error: float  # worst |mean - reference| / reference SD
    sd_error: float  # worst |SD / reference SD - 1|
    guide_mean_error: float  # the same of the guide's own draws, uncorrected
    guide_sd_error: float
    k_hat: float
    evaluations: int
    seconds: float  # compile included
    compile_seconds: float
    word: str  # verdict; 'slower' or 'reached' of a peer that runs to an error
    elbo: float


def errors(posterior: Any, sites: Any, log_weights: Any = None) -> tuple[float, float]:
    """Worst mean error in reference SDs and worst relative SD error of (weighted) draws."""
    x = np.asarray(posterior.flatten(sites), np.float64)
    w = (
        np.full(len(x), 1 / len(x))
        if log_weights is None
        else np.exp(np.asarray(log_weights, np.float64))
    )
    mean = w @ x
    sd = np.sqrt(w @ (x - mean) ** 2)
    known = np.isfinite(posterior.sd)
    return (
        float(np.max(np.abs(mean - posterior.mean)[known] / posterior.sd[known])),
        float(np.max(np.abs(sd / posterior.sd - 1)[known])),
    )


def ours(posterior: Any, name: str, method: Any) -> Row:
    """One of vi_jax's methods; None is the default; with linear response on top where the name ends
    in RESPONSE.
    """
    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    result = vi.fit(jax.random.key(0), target, method, num_draws=NUM_DRAWS)
    result = result.linear_response(jax.random.key(1)) if name.endswith(RESPONSE) else result
    d = result.diagnostics
    sites = jax.jit(jax.vmap(target.constrain))(result.weighed.u)
    guide = errors(posterior, sites)
    best = errors(posterior, sites, result.weighed.log_weights) if d.trusted else guide
    return Row(
        posterior.name,
        name,
        *best,
        *guide,
        d.k_hat,
        result.evaluations,
        result.seconds,
        result.compile_seconds,
        d.verdict,
        d.elbo,
    )


def numpyro_svi(posterior: Any, guide_name: str, goal: float, limit: float) -> Row:
    """NumPyro's SVI with an automatic guide until its worst mean error is `goal`, or for `limit`
    seconds.
    """
    from numpyro.infer import SVI, Trace_ELBO, autoguide
    from numpyro.optim import Adam

    began = time.perf_counter()
    guide = getattr(autoguide, guide_name)(posterior.model)
    svi = SVI(posterior.model, guide, Adam(SVI_STEP), Trace_ELBO())
    state = None
    steps = 0
    looking = 0.0
    found = (np.inf, np.inf)
    run = None
    while found[0] > goal and time.perf_counter() - began - looking < limit:
        if run is None:
            state = svi.init(jax.random.key(0))
            run = jax.jit(
                lambda state: jax.lax.scan(
                    lambda s, _: svi.update(s), state, None, length=SVI_BLOCK
                )[0]
            )
        state = jax.block_until_ready(run(state))
        steps += SVI_BLOCK
        looked = time.perf_counter()
        draws = guide.sample_posterior(
            jax.random.key(1), svi.get_params(state), sample_shape=(NUM_DRAWS,)
        )
        found = errors(posterior, _with_deterministics(posterior, draws))
        looking += time.perf_counter() - looked
    seconds = time.perf_counter() - began - looking
    word = "reached" if found[0] <= goal else "slower"
    return Row(
        posterior.name,
        f"NumPyro {guide_name}",
        *found,
        *found,
        np.nan,
        steps,
        seconds,
        np.nan,
        word,
        np.nan,
    )


def _with_deterministics(posterior: Any, draws: dict[str, Any]) -> dict[str, Any]:
    from numpyro.infer import Predictive

    latents = {name: value for name, value in draws.items() if not name.startswith("_auto")}
    return {**Predictive(posterior.model, latents)(jax.random.key(2)), **latents}


def blackjax(posterior: Any, kind: str) -> Row:
    """BlackJAX's Pathfinder or mean-field VI on the same log density."""
    import blackjax as bj
    import jax.numpy as jnp
    import optax

    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    began = time.perf_counter()
    start = jax.random.uniform(jax.random.key(0), (target.size,), minval=-2.0, maxval=2.0)
    if kind == "pathfinder":
        state, _ = jax.jit(
            lambda key: bj.vi.pathfinder.approximate(key, target.log_density, start)
        )(jax.random.key(1))
        u, _ = jax.jit(lambda key: bj.vi.pathfinder.sample(key, state, NUM_DRAWS))(
            jax.random.key(2)
        )
        steps = -1
    else:
        vi_ = bj.meanfield_vi(target.log_density, optax.adam(SVI_STEP), 10)
        steps = 5000

        def one(state: Any, key: Any) -> tuple[Any, None]:
            return vi_.step(key, state)[0], None

        run = jax.jit(
            lambda key: jax.lax.scan(
                one, vi_.init(jnp.zeros(target.size)), jax.random.split(key, steps)
            )[0]
        )
        u = vi_.sample(jax.random.key(2), run(jax.random.key(1)), NUM_DRAWS)
    u = jax.block_until_ready(u)
    seconds = time.perf_counter() - began
    found = errors(posterior, jax.jit(jax.vmap(target.constrain))(u))
    evaluations = steps * 10 if steps > 0 else -1
    return Row(
        posterior.name,
        f"BlackJAX {kind}",
        *found,
        *found,
        np.nan,
        evaluations,
        seconds,
        np.nan,
        "",
        np.nan,
    )


def pymc(posterior: Any, kind: str) -> Row:
    """PyMC's ADVI with its defaults, 10,000 steps of one draw from 0, on the same log density as an
    operation of PyTensor.
    """
    import pymc as pm
    from pytensor import wrap_jax

    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    began = time.perf_counter()
    with pm.Model():
        latents = pm.Flat("u", shape=target.size, initval=np.zeros(target.size))
        pm.Potential("log_density", wrap_jax(jax.jit(target.log_density))(latents))
        approximation = pm.fit(PYMC_STEPS, method=kind, random_seed=0, progressbar=False)
    draws = approximation.sample(NUM_DRAWS, random_seed=1, return_inferencedata=False)
    seconds = time.perf_counter() - began
    u = np.asarray(draws["u"]).reshape(-1, target.size)
    found = errors(posterior, jax.jit(jax.vmap(target.constrain))(u))
    return Row(
        posterior.name,
        f"PyMC {kind}",
        *found,
        *found,
        np.nan,
        PYMC_STEPS,
        seconds,
        np.nan,
        "",
        np.nan,
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Flags that choose posteriors, and where rows and tables go."""
    parser.add_argument(
        "--root", default="../shared/data/posteriordb", help="a clone of stan-dev/posteriordb"
    )
    parser.add_argument(
        "--only", default="", help="posteriors whose name holds one of these texts, comma-separated"
    )
    parser.add_argument(
        "--part", default="1/1", help="I/N: the I-th of N slices of them, every N-th posterior"
    )
    parser.add_argument("--json", default="", help="file for every row")
    parser.add_argument(
        "--rows",
        default="",
        help="such files, comma-separated: nothing runs, tables are made of their rows",
    )
    parser.add_argument(
        "--write", action="store_true", help="put the tables into benchmarks/README.md"
    )


def selected(flags: argparse.Namespace) -> list[str]:
    """Names of the posteriors that were asked for.

    Raises:
      ValueError: `part` is not I/N with 1 <= I <= N.
    """
    from experiments import posteriordb

    which, _, of = flags.part.partition("/")
    if not (which.isdigit() and of.isdigit() and 1 <= int(which) <= int(of)):
        raise ValueError(f"--part wants I/N with 1 <= I <= N, as in 2/6; got {flags.part!r}.")
    asked = [part for part in flags.only.split(",") if part]
    names = [
        name for name in posteriordb.names() if not asked or any(part in name for part in asked)
    ]
    return names[int(which) - 1 :: int(of)]


def run_all(flags: argparse.Namespace) -> list[Row]:
    """Every method on every posterior; one that fails is reported and left out."""
    import vi_jax as vi
    from experiments import posteriordb

    methods: dict[str, Callable[[], Any]] = {"default": lambda: None}
    methods |= {name: getattr(vi.methods, name) for name in vi.methods.__all__}
    rows: list[Row] = []
    for name in selected(flags):
        posterior = posteriordb.load(name, Path(flags.root))
        jobs: list[tuple[str, Callable[[], Row]]] = [
            (
                m,
                lambda m=m, posterior=posterior: ours(
                    posterior, m, methods[m.removesuffix(RESPONSE)]()
                ),
            )
            for m in flags.methods.split(",")
            if m
        ]
        for peer in [p for p in flags.peers.split(",") if p]:
            jobs.append((peer, lambda peer=peer, posterior=posterior: _peer(posterior, peer, rows)))
        for label, job in jobs:
            try:
                rows.append(job())
                r = rows[-1]
                report.say(
                    f"{name:45s} {r.method:32s} mean {r.mean_error:7.3f} SD {r.sd_error:7.3f} "
                    f"k-hat {r.k_hat:5.2f} "
                    f"evaluations {r.evaluations:6d}  {r.seconds:5.1f} s  {r.word}"
                )
            except Exception as error:  # a peer's failure is a result too, and is shown
                report.say(
                    f"{name:45s} {label:32s} FAILED: {type(error).__name__}: "
                    f"{str(error).splitlines()[0][:120]}"
                )
                rows.append(
                    Row(name, label, *[np.inf] * 4, np.nan, 0, np.nan, np.nan, "failed", np.nan)
                )
        jax.clear_caches()
    return rows


def _peer(posterior: Any, peer: str, rows: list[Row]) -> Row:
    if peer.startswith("blackjax-"):
        return blackjax(posterior, peer.removeprefix("blackjax-"))
    if peer.startswith("pymc-"):
        return pymc(posterior, peer.removeprefix("pymc-"))
    default = next(
        row for row in reversed(rows) if row.posterior == posterior.name and row.method == "default"
    )
    return numpyro_svi(posterior, peer, default.mean_error, default.seconds)


def summary(rows: list[Row]) -> str:
    """A line for each method."""
    head = (
        "method",
        "posteriors",
        "mean error <= 0.1 SD",
        "SD error <= 10 %",
        "median mean error",
        "median SD error",
        "the guide's own SD error",
        "evaluations, median",
        "seconds, median",
        "of which compiling",
        "called reliable, mean error > 0.3 SD",
    )
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        done = [row for row in mine if row.word != "failed"]
        called = [row for row in done if row.word in ("reliable", "corrected only")]

        def median(field: str, done: list[Row] = done) -> float:
            return statistics.median(getattr(row, field) for row in done) if done else np.nan

        spent = median("evaluations")
        lines.append(
            (
                f"**{method}**",
                f"{len(done)} of {len(mine)}",
                str(sum(row.mean_error <= 0.1 for row in done)),
                str(sum(row.sd_error <= 0.1 for row in done)),
                f"{median('mean_error'):.3f}",
                f"{median('sd_error'):.3f}",
                f"{median('guide_sd_error'):.3f}",
                f"{spent:,.0f}" if spent > 0 else "not told",
                f"{median('seconds'):.1f}",
                "-" if np.isnan(median("compile_seconds")) else f"{median('compile_seconds'):.1f}",
                f"{sum(row.mean_error > 0.3 for row in called)} of {len(called)}"
                if called
                else "-",
            )
        )
    return report.markdown_table(head, lines)


def each(rows: list[Row]) -> str:
    """A line for each posterior, of the default."""
    head = (
        "posterior",
        "mean error, SD",
        "SD error",
        "guide's mean error",
        "guide's SD error",
        "k-hat",
        "evaluations",
        "s",
        "verdict",
        "NumPyro AutoMultivariateNormal in the same time, mean error",
    )
    lines = []
    for row in rows:
        if row.method != "default":
            continue
        peer = [
            r
            for r in rows
            if r.posterior == row.posterior and r.method == "NumPyro AutoMultivariateNormal"
        ]
        if not peer:
            other = "-"
        elif peer[0].word == "slower":
            other = f"{peer[0].mean_error:.2f}"
        else:
            other = f"reached in {peer[0].seconds:.1f} s"
        lines.append(
            (
                row.posterior,
                f"{row.mean_error:.3f}",
                f"{row.sd_error:.3f}",
                f"{row.guide_mean_error:.3f}",
                f"{row.guide_sd_error:.3f}",
                f"{row.k_hat:.2f}",
                f"{row.evaluations:,}",
                f"{row.seconds:.1f}",
                row.word,
                other,
            )
        )
    return report.markdown_table(head, lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_selection(parser)
    parser.add_argument(
        "--methods",
        default="default,pathfinder,laplace",
        help="of vi_jax, comma-separated; also dadvi+linear_response",
    )
    parser.add_argument(
        "--peers",
        default=(
            "AutoMultivariateNormal,AutoNormal,blackjax-pathfinder,blackjax-meanfield,pymc-advi"
        ),
        help="AutoNormal, AutoMultivariateNormal, blackjax-pathfinder, blackjax-meanfield, "
        "pymc-advi, pymc-fullrank_advi; "
        "comma-separated; one that is not installed fails and is shown as failed",
    )
    flags = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore")
    if flags.rows:
        rows = [
            Row(**row)
            for path in flags.rows.split(",")
            for row in json.loads(Path(path).read_text())
        ]
        order = {
            name: number for number, name in enumerate(dict.fromkeys(row.method for row in rows))
        }
        rows.sort(key=lambda row: (row.posterior.lower(), order[row.method]))
    else:
        rows = run_all(flags)
    versions = ", ".join(
        f"{k} {v}"
        for k, v in report.versions("jax", "numpyro", "blackjax", "pymc", "vi_jax").items()
    )
    note = f"Float64. {report.device_name()}; {versions}."
    raced = [row for row in rows if row.method == "NumPyro AutoMultivariateNormal"]
    if raced:
        ahead = sum(row.word == "slower" or row.word == "failed" for row in raced)
        note += (
            " `vi.fit` reached its mean error before NumPyro's AutoMultivariateNormal on "
            f"{ahead} of {len(raced)}."
        )
    text = f"{summary(rows)}\n\n{note}\n\n{each(rows)}"
    print(text)
    if flags.json:
        Path(flags.json).write_text(json.dumps([row._asdict() for row in rows], indent=1))
    if flags.write:
        report.write_block("posteriordb", text)


if __name__ == "__main__":
    main()
