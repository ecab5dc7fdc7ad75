"""DADVI with linear response against reference draws, and its evaluations beside those of Adam at
the same ELBO.

    python -m benchmarks.mean_field --root=DIR --write  # DIR: a clone of stan-dev/posteriordb
    python -m benchmarks.mean_field --root=DIR --part=1/4 --json=part1.json  # a quarter of them
    python -m benchmarks.mean_field --rows=part1.json,part2.json --write  # the tables of saved rows

Mean-field guides in float64. Errors are over unconstrained latents, of the median and of the worst
of a posterior, in reference standard deviations, relative for standard deviations. *Adam* is what
most libraries do: from N(0, 0.1^2 I), 10 draws a step, a constant rate, the average of the last 20
iterates; run at 0.1 and at 0.01 until the ELBO is within 0.1 nats of DADVI's, by the same 1,000
draws. DADVI, too, is told until it is that near its own end, and to its end. `advi` is vi_jax's
own, from DADVI's start, run until it says that it has converged.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report
from benchmarks.plain_methods import BLOCK, plain_adam
from benchmarks.posteriordb_rows import add_selection, read_rows, selected

RATES = (0.1, 0.01)
MAX_GRADIENTS = 300_000
ELBO_DRAWS = 1000
RESPONSE_DRAWS = 50


class Row(NamedTuple):
    """One posterior."""

    posterior: str
    latents: int
    converged: bool
    mean_error: float  # median over latents
    worst_mean_error: float
    guide_sd_error: float  # median over latents
    own_sd_error: float  # of linear response by DADVI's own 30 draws, median
    sd_error: float  # of `linear_response_of_draws`, median
    worst_sd_error: float
    evaluations: int  # gradients of DADVI, to its end
    near_evaluations: int  # until it is within 0.1 nats of that
    response_evaluations: int  # and of linear response
    adam_evaluations: tuple[int, ...]  # until it is as near, at each of RATES
    reached: tuple[bool, ...]  # Adam got there; else that is where it was stopped
    advi_evaluations: int  # until `advi` ended by its own rule
    advi_reached: bool
    advi_gap: float  # nats, its ELBO less DADVI's
    seconds: float  # of DADVI, compile included


def measure(posterior: Any, draws: np.ndarray, limit: float) -> Row:
    """DADVI, linear response, Adam until the same ELBO or for `limit` seconds."""
    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    reference = np.asarray(jax.jit(jax.vmap(target.unconstrain))(posterior.unflatten(draws)))
    mean = reference.mean(0)
    sd = reference.std(0, ddof=1)
    result = vi.fit(jax.random.key(0), target, vi.methods.dadvi())
    response = jax.jit(partial(vi.methods.linear_response_of_draws, target.log_density))
    covariance = response(result.weighted.u[:RESPONSE_DRAWS])
    own = jax.jit(partial(vi.methods.linear_response_sd, target.log_density))(result.state)
    off = np.abs(np.asarray(result.guide.mean) - mean) / sd
    guide, own, new = (
        np.abs(np.asarray(x) / sd - 1)
        for x in (result.guide.variance**0.5, own, np.sqrt(np.diag(covariance)))
    )
    adams = [
        until(target, plain_adam(rate, num_steps=MAX_GRADIENTS // 10), result.guide, limit)
        for rate in RATES
    ]
    near, _, _ = until(target, vi.methods.dadvi(), result.guide, limit, block=1)
    return Row(
        posterior.name,
        target.size,
        result.converged,
        float(np.median(off)),
        float(off.max()),
        float(np.median(guide)),
        float(np.median(own)),
        float(np.median(new)),
        float(new.max()),
        result.evaluations,
        near,
        2 * RESPONSE_DRAWS * 2 * target.size,
        tuple(adam[0] for adam in adams),
        tuple(adam[1] for adam in adams),
        *until(target, vi.methods.advi(), result.guide, limit, goal_gap=None),
        result.seconds,
    )


def until(
    target: Any,
    method: Any,
    goal: Any,
    limit: float,
    *,
    goal_gap: float | None = -0.1,
    block: int = BLOCK,
) -> tuple[int, bool, float]:
    """Gradients until a method's ELBO less that of the guide `goal` is `goal_gap`, or if that is
    None until it is done; whether it got there within `limit` seconds; and that gap, nats.
    """

    def elbo(q: Any) -> Any:
        u = q.sample(jax.random.key(1), (ELBO_DRAWS,))
        return jnp.mean(jax.lax.map(target.log_density, u, batch_size=50) - jax.vmap(q.log_prob)(u))

    @jax.jit
    def advance(state: Any, first: Any) -> tuple[Any, Any, Any, Any]:
        def step(number: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            return method.step(
                jax.random.fold_in(jax.random.key(2), number), target.log_density, carry[0]
            )

        nothing = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(step, first, (state, None))[1],
        )
        state, info = jax.lax.fori_loop(first, first + block, step, (state, nothing))
        return state, info.evaluations, info.done, elbo(method.guide(state))

    best = float(jax.jit(elbo)(goal))
    began = 0.0
    state = jax.jit(
        lambda: method.init(jax.random.key(3), target.log_density, jnp.zeros(target.size))
    )()
    for first in range(0, method.num_steps, block):
        state, spent, done, value = advance(state, first)
        gap = float(value) - best
        began = time.perf_counter() if first == 0 else began  # what compiling took is not counted
        there = bool(done) if goal_gap is None else gap >= goal_gap
        if there or bool(done) or time.perf_counter() - began > limit:
            return int(spent), there, gap
    return int(spent), False, gap


HEAD = (
    "posterior",
    "latents",
    "mean error, SD",
    "worst mean error, SD",
    "mean field's SD error",
    "linear response's SD error",
    "linear response's worst SD error",
    "by DADVI's own draws",
    "DADVI's gradients",
    "to within 0.1 nats",
    "linear response's",
    "Adam's at 0.01 to there",
    "Adam's at 0.01, times DADVI's",
    "Adam's at 0.1 to there",
    "Adam's at 0.1, times DADVI's",
    "`advi`'s to its end",
    "`advi`'s, times DADVI's",
    "its ELBO less DADVI's",
)
ERRORS = (
    "mean_error",
    "worst_mean_error",
    "guide_sd_error",
    "sd_error",
    "worst_sd_error",
    "own_sd_error",
)
SPENT = ("evaluations", "near_evaluations", "response_evaluations")


def summary(rows: list[Row]) -> str:
    """The medians, a line each; beside it that of the worst parameter, or the ratio to DADVI's."""
    (title, _, *cells) = medians(rows)
    values = dict(zip(HEAD[2:], cells, strict=True))
    lines = []
    for name, value in values.items():
        if "worst" in name or "times" in name:
            (first, number, _) = lines.pop()
            lines.append((first, number, f"{'worst' if 'worst' in name else 'times'}: {value}"))
        else:
            lines.append((name, value, ""))
    return report.markdown_table((title, "", ""), lines)


def medians(rows: list[Row]) -> tuple[str, ...]:
    """The line of `HEAD` for the median of the posteriors on which DADVI converged."""
    done = [row for row in rows if row.converged]

    def median(value: Callable[[Row], float]) -> float:
        return statistics.median(value(row) for row in done)

    def adam(which: int) -> tuple[str, str]:
        return (
            f"{median(lambda row: row.adam_evaluations[which]):,.0f}",
            f"{median(lambda row: _times(row, which)):.1f}",
        )

    return (
        f"**median of the {len(done)} of {len(rows)} that converged**",
        "",
        *(f"{median(attrgetter(name)):.3f}" for name in ERRORS),
        *(f"{median(attrgetter(name)):,.0f}" for name in SPENT),
        *adam(1),
        *adam(0),
        f"{median(attrgetter('advi_evaluations')):,.0f}",
        f"{median(_advi):.1f}",
        f"{median(attrgetter('advi_gap')):+.2f}",
    )


def each(rows: list[Row]) -> report.LongTable:
    """A line for each posterior."""
    return report.LongTable(HEAD, [_line(row) for row in rows])


def _times(row: Row, which: int) -> float:
    return row.adam_evaluations[which] / row.near_evaluations


def _advi(row: Row) -> float:
    return row.advi_evaluations / row.evaluations


def _line(row: Row) -> tuple[str, ...]:
    def adam(which: int) -> tuple[str, str]:
        more = "" if row.reached[which] else "> "
        return f"{more}{row.adam_evaluations[which]:,}", f"{more}{_times(row, which):.1f}"

    more = "" if row.advi_reached else "> "
    return (
        row.posterior + ("" if row.converged else ", not converged"),
        str(row.latents),
        *(f"{getattr(row, name):.3f}" for name in ERRORS),
        *(f"{getattr(row, name):,}" for name in SPENT),
        *adam(1),
        *adam(0),
        f"{more}{row.advi_evaluations:,}",
        f"{more}{_advi(row):.1f}",
        f"{row.advi_gap:+.2f}",
    )


def run_all(flags: argparse.Namespace) -> list[Row]:
    """Every posterior that the flags choose; one that fails is reported and left out."""
    from experiments import posteriordb

    rows: list[Row] = []
    for name in selected(flags):
        posterior = posteriordb.load(name, Path(flags.root))
        try:
            rows.append(
                measure(posterior, posteriordb.reference_draws(name, Path(flags.root)), flags.limit)
            )
            r = rows[-1]
            report.say(
                f"{name:45s} SD {r.guide_sd_error:6.3f} -> {r.sd_error:6.3f} (worst "
                f"{r.worst_sd_error:.3f}, own "
                f"{r.own_sd_error:.3f}) gradients {r.evaluations:6d} ({r.near_evaluations}), "
                f"Adam {r.adam_evaluations} "
                f"{r.reached}, advi {r.advi_evaluations:6d}{'' if r.advi_reached else ' not'} "
                f"({r.advi_gap:+.2f}) {r.seconds:.1f} s"
            )
        except Exception as error:  # shown, and missing from the table
            report.say(
                f"{name:45s} FAILED: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
            )
        jax.clear_caches()
    return rows


def main() -> None:
    """The command."""
    parser = report.make_parser(__doc__.splitlines()[0])
    add_selection(parser)
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds that Adam may take for one posterior"
    )
    flags = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore")
    rows = read_rows(flags.rows, Row) if flags.rows else run_all(flags)
    note = f"Float64. {report.used('jax', 'numpyro', 'vi_jax')} {report.link('mean_field')}"
    text = f"{summary(rows)}\n\n{note}"
    report.finish("mean_field", text, flags, [row._asdict() for row in rows], each(rows))


if __name__ == "__main__":
    main()
