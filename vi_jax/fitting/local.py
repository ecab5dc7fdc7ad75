"""`vi.fit` of a posterior with local latent variables."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.many_rows import IntegratedWeights, weigh_many_rows
from vi_jax.diagnostics.rows import k_hats, weigh_shared
from vi_jax.fitting._compile import Program, compiled, quick_loops
from vi_jax.fitting._watch import Blocks, OnPhase, Report, silently
from vi_jax.fitting.local_result import (
    K_HAT_DRAWS,
    MAX_INTEGRATED_ROWS,
    Checks,
    LocalResult,
    filled,
)
from vi_jax.local.advi import LocalMethod, local_advi
from vi_jax.local.guide import LocalGuide
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import TargetError
from vi_jax.types import Array

ROW_DRAWS = 16  # of each row, for each sample of theta
COMMON_ROW_DRAWS = 32  # of each row, where all samples of theta share them
MAX_CHECKED_ROWS = 1_000  # rows whose k-hats are computed, at most
# rows up to which each sample of theta has row samples of its own; all samples share them beyond
MAX_OWN_NOISE_ROWS = 1_000
ROW_VALUES = 160_000_000  # values of log p(x_n, z_n | theta) that many rows may take, about
MIN_THETA_DRAWS = 200  # all the same
ELBO_BATCHES = 200


class Loop(NamedTuple):
    """Carried from step to step; without history of the table."""

    state: Any
    values: Array  # [num_steps]
    done: Array
    step: Array


def fit_local(
    key: Array,
    target: LocalTarget,
    method: Any = None,
    *,
    start: Array | None = None,
    num_draws: int = 4000,
    report: Report | None = None,
    report_every: int | None = 100,
    on_phase: OnPhase | None = None,
) -> LocalResult:
    """`vi.fit` of a LocalTarget: runs the method in one compiled loop, whose steps cost the same
    for any number of rows.

    Args:
      key: one typed PRNG key.
      target: from `vi.targets.from_local_rows`, or `from_numpyro` of a model whose subsampled plate
        holds latent sites.
      method: `vi.methods.local_advi(...)`; with its defaults if not given.
      start: of theta, u [D]; 0 if not given.
      num_draws: of theta, weighted at the end; fewer where there are more than 1,250 rows, 200 at
        least, and none above 100,000 rows.
      report, report_every, on_phase: as for `vi.fit`; the value is the mean of the steps since the
        last report.

    Raises:
      TargetError: the log density is not finite at the start.
      FloatingPointError: no step was finite, or the answer is not.
      ValueError: a method or a start that does not fit the target.
    """
    began = time.perf_counter()
    method = local_advi() if method is None else method
    u = jnp.zeros(target.size) if start is None else jnp.asarray(start)
    _require(target, method, u)
    key_init, key_run, key_check = jax.random.split(key, 3)

    on_phase = on_phase or silently
    on_phase(f"compiling {method.name}")
    clock = time.perf_counter()
    begin = partial(_begin, target=target, method=method)
    carried = jax.eval_shape(begin, key_init, u)
    advance = partial(_advance, target=target, method=method)
    options = quick_loops()
    start_of, run = compiled(
        Program(options, begin, (key_init, u)),
        Program(options, advance, (key_run, carried, jnp.int32(0)), donate=(1,)),
    )
    compile_seconds = time.perf_counter() - clock

    on_phase(f"running {method.name}")
    length = method.num_steps if report is None else report_every
    blocks = Blocks(length)
    loop = _run(start_of(key_init, u), partial(run, key_run), method.num_steps, blocks, report)

    num_draws = affordable_draws(num_draws, target.num_rows)
    weighing = f"weighing {num_draws:,} samples and " if num_draws else ""
    on_phase(f"{weighing}checking the rows")
    guide = jax.jit(partial(method.guide, target))(loop.state)
    history = np.asarray(loop.values[: int(loop.step)])
    checks = _checks(key_check, target, guide, num_draws)
    if not np.any(np.isfinite(history)) or not np.all(np.isfinite(np.asarray(checks.elbos))):
        raise FloatingPointError(
            "no step was finite, or the guide is not: see vi.check, which names the line."
        )
    return LocalResult(
        target=target,
        method=method.name,
        guide=guide,
        state=loop.state,
        history={"value": history},
        converged=bool(loop.done),
        num_steps=int(loop.step),
        compile_seconds=compile_seconds,
        seconds=time.perf_counter() - began,
        checks=checks,
    )


def _begin(key: Array, u: Array, *, target: LocalTarget, method: LocalMethod) -> Loop:
    values = jnp.full(method.num_steps, jnp.nan, u.dtype)
    return Loop(method.init(key, target, u), values, jnp.bool_(False), jnp.int32(0))


def _advance(
    key: Array, loop: Loop, last: Array, *, target: LocalTarget, method: LocalMethod
) -> Loop:
    """Steps up to `last`, or until the method is done."""

    def step(loop: Loop) -> Loop:
        state, info = method.step(jax.random.fold_in(key, loop.step), target, loop.state)
        return Loop(state, loop.values.at[loop.step].set(info.value), info.done, loop.step + 1)

    return jax.lax.while_loop(lambda loop: (loop.step < last) & ~loop.done, step, loop)


def _run(
    loop: Loop,
    advance: Callable[[Loop, Array], Loop],
    num_steps: int,
    blocks: Blocks,
    report: Report | None,
) -> Loop:
    """The loop at its end, with a report after each block."""
    while not bool(loop.done) and int(loop.step) < num_steps:
        first = int(loop.step)
        blocks.begin()
        loop = advance(loop, jnp.minimum(loop.step + blocks.size, num_steps))
        last = int(loop.step)
        blocks.end(last - first)
        if report is not None:
            report(last, float(np.nanmean(np.asarray(loop.values[first:last]))))
    return loop


def _require(target: LocalTarget, method: Any, u: Array) -> None:
    if not isinstance(method, LocalMethod):
        raise ValueError(
            f"{method.name} moves one vector; local latent variables need "
            "vi.methods.local_advi. (target.whole() is the same posterior as one vector, for few "
            "rows.)"
        )
    if u.shape != (target.size,):
        raise ValueError(
            f"start expects shape ({target.size},), theta unconstrained; got {u.shape}."
        )
    v = jnp.zeros((target.batch_size, target.local_size))
    index = jnp.arange(target.batch_size)
    value = float(jax.jit(target.batch_log_joint)(u, v, index))
    if not np.isfinite(value):
        raise TargetError(
            f"the log density is {value} at the start, on the first {target.batch_size:,} rows; "
            "give another start=."
        )


def _checks(key: Array, target: LocalTarget, guide: LocalGuide, num_draws: int) -> Checks:
    key_elbo, key_rows, key_theta = jax.random.split(key, 3)

    def log_weights(key: Array, u: Array, index: Array) -> Array:
        v = guide.sample_rows(key, target, u, index)
        log_q = jax.vmap(lambda q, v: q.log_prob(v))(guide.of_rows(target, u, index), v)
        return target.log_rows(u, v, index) - log_q

    def elbo_on(key: Array) -> Array:
        key_u, key_index, key_v = jax.random.split(key, 3)
        u = guide.shared.sample(key_u)
        rows = log_weights(key_v, u, target.sample_index(key_index)).sum()
        return target.log_global(u) - guide.shared.log_prob(u) + target.scale * rows

    def row_k_hats(key: Array) -> Array:
        key_index, key_u, key_draws = jax.random.split(key, 3)
        num = min(MAX_CHECKED_ROWS, target.num_rows)
        index = filled(
            jax.random.choice(key_index, target.num_rows, (num,), replace=False), target.batch_size
        )
        u = guide.shared.sample(key_u, (len(index),))
        return k_hats(key_draws, log_weights, u, index, num_draws=K_HAT_DRAWS).reshape(-1)[:num]

    elbos = jax.jit(lambda key: jax.lax.map(elbo_on, jax.random.split(key, ELBO_BATCHES)))(key_elbo)
    shared = None
    row_stderr = None
    if target.num_rows <= MAX_OWN_NOISE_ROWS:
        own = partial(
            weigh_shared,
            log_global=target.log_global,
            log_weights=log_weights,
            q=guide.shared,
            batches=target.batches(),
            num_draws=num_draws,
            num_row_draws=ROW_DRAWS,
        )
        shared = jax.jit(own)(key_theta)
    elif target.num_rows <= MAX_INTEGRATED_ROWS:
        common = partial(_weigh_many, target=target, guide=guide, num_draws=num_draws)
        shared, row_stderr = jax.jit(common)(key_theta)
    return Checks(elbos, jax.jit(row_k_hats)(key_rows), shared, row_stderr)


def _weigh_many(
    key: Array, *, target: LocalTarget, guide: LocalGuide, num_draws: int
) -> IntegratedWeights:
    def even_weights(key: Array, u: Array, index: Array, num: int) -> Array:
        return guide.weigh_rows(key, target, u, index, num)

    return weigh_many_rows(
        key,
        target.log_global,
        even_weights,
        guide.shared,
        target.batches(),
        num_draws=num_draws,
        num_row_draws=COMMON_ROW_DRAWS,
    )


def affordable_draws(num_draws: int, num_rows: int) -> int:
    """The even number of samples of theta, at most num_draws, that are weighted with so many rows
    integrated out for each; 0 beyond MAX_INTEGRATED_ROWS.
    """
    if num_rows <= MAX_OWN_NOISE_ROWS:
        return num_draws
    if num_rows > MAX_INTEGRATED_ROWS:
        return 0
    most = max(MIN_THETA_DRAWS, ROW_VALUES // (num_rows * COMMON_ROW_DRAWS))
    return max(2, min(num_draws, most) // 2 * 2)
