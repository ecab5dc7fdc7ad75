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
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import report
from benchmarks.posteriordb_peers import run_peer
from benchmarks.posteriordb_rows import (
    NUM_DRAWS,
    Row,
    add_selection,
    errors,
    read_rows,
    selected,
)
from benchmarks.posteriordb_tables import each, summary

RESPONSE = "+linear_response"  # after a method's name


def ours(posterior: Any, name: str, method: Any) -> Row:
    """One of vi_jax's methods; None is the default; with linear response on top where the name ends
    in RESPONSE.
    """
    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    result = vi.fit(jax.random.key(0), target, method, num_draws=NUM_DRAWS)
    result = result.linear_response(jax.random.key(1)) if name.endswith(RESPONSE) else result
    d = result.diagnostics
    sites = jax.jit(jax.vmap(target.constrain))(result.weighted.u)
    guide = errors(posterior, sites)
    best = errors(posterior, sites, result.weighted.log_weights) if d.trusted else guide
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


def run_all(flags: argparse.Namespace) -> list[Row]:
    """Every method on every posterior; one that fails is reported and left out."""
    import vi_jax as vi
    from experiments import posteriordb

    methods: dict[str, Callable[[], Any]] = {"default": lambda: None}
    methods |= {name: getattr(vi.methods, name) for name in vi.methods.__all__}
    rows: list[Row] = []
    for name in selected(flags):
        posterior = posteriordb.load(name, Path(flags.root))
        jobs: list[tuple[str, Callable[[], Row]]] = []
        for method in filter(None, flags.methods.split(",")):
            make = methods[method.removesuffix(RESPONSE)]
            jobs.append((method, partial(ours, posterior, method, make())))
        for peer in filter(None, flags.peers.split(",")):
            jobs.append((peer, partial(run_peer, posterior, peer, rows)))
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


def main() -> None:
    """The command."""
    flags = parse_flags()
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore")
    rows = in_order(read_rows(flags.rows, Row)) if flags.rows else run_all(flags)
    note = f"Float64. {report.used('jax', 'numpyro', 'blackjax', 'pymc', 'vi_jax')}"
    raced = [row for row in rows if row.method == "NumPyro AutoMultivariateNormal"]
    if raced:
        ahead = sum(row.word in ("slower", "failed") for row in raced)
        note += (
            " `vi.fit` reached its mean error before NumPyro's AutoMultivariateNormal on "
            f"{ahead} of {len(raced)}."
        )
    text = f"{summary(rows)}\n\n{note} {report.link('posteriordb', 'The default on each')}"
    report.finish("posteriordb", text, flags, [row._asdict() for row in rows], each(rows))


def in_order(rows: list[Row]) -> list[Row]:
    """Rows by posterior, methods in the order in which they come."""
    methods = list(dict.fromkeys(row.method for row in rows))
    return sorted(rows, key=lambda row: (row.posterior.lower(), methods.index(row.method)))


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser(__doc__.splitlines()[0])
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
        "pymc-advi, pymc-fullrank_advi; comma-separated; one that is not installed fails and is "
        "shown as failed",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
