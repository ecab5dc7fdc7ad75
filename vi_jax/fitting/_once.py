"""One run of a method: starts, compiled programs, the loop, and the importance-weighted samples."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from vi_jax.arguments import describe
from vi_jax.diagnostics.posterior import trusted
from vi_jax.fitting import _control_variate, _end, _loop, _starts
from vi_jax.fitting._compile import (
    Compiler,
    Program,
    compiled,
    compiler_options,
    largest_array,
    values_options,
)
from vi_jax.fitting._watch import Watch, run_loop, weighing
from vi_jax.fitting.result import Result
from vi_jax.shard import ALONE, Layout, make_layout
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

NUM_DRAWS = 4000  # samples weighed at the end, where they cost little
LEAST_DRAWS = 1000  # where they cost much: means are then within 0.1 standard deviations
# numbers that NUM_DRAWS values go through, above which their cost is measured
MEASURED_ABOVE = 1e9
WEIGHING_SECONDS = 5.0  # that the samples at the end may take
# effective samples of an answer that is kept before a method's end: errors of means of 0.03 SD
MIN_EFFECTIVE = 1000.0
NEGLIGIBLE_WEIGHT = 1e-3  # weight of a start that need not have converged


class Plan(NamedTuple):
    """A method and its starts; see `vi.fit`."""

    method: Method
    num_starts: int = 1
    combine: str = "best"
    start: Array | None = None
    mesh: Mesh | None = None
    looks: tuple[int, ...] = ()  # steps after which the answer is kept if it can be trusted


class Programs(NamedTuple):
    """The compiled programs of a run, and what they are run on."""

    begin: Callable[..., Any]
    advance: Callable[..., Any]
    judge: Callable[..., Any]
    num_draws: int  # that it weighs
    why_draws: str  # these; empty for those that were asked for, or NUM_DRAWS
    target: Target  # as the method sees it
    starts: Array  # u [R, D]
    keys: tuple[Array, Array, Array]  # of begin, advance and judge
    evaluations: int  # gradients over all rows, for a control variate
    place: Callable[[Any], Any]  # lays an array where the programs run


def run_once(
    key: Array, plan: Plan, *, target: Target, num_draws: int | None, watch: Watch
) -> Result:
    """One method from its starts to its Result."""
    began = time.perf_counter()
    layout = _layout(plan.mesh, plan.num_starts)
    programs = _programs(key, plan, target, num_draws, layout, watch)
    compile_seconds = time.perf_counter() - began
    key_init, key_run, key_weigh = programs.keys

    clock = time.perf_counter()
    watch.on_phase(f"starting {plan.method.name}")
    loop = jax.block_until_ready(programs.begin(key_init, programs.starts))
    watch.on_phase(f"running {plan.method.name}")
    advance = partial(programs.advance, key_run)
    for until in (*plan.looks, plan.method.num_steps):
        loop = run_loop(watch, advance, loop, programs.place, until)
        weighing(watch, programs.num_draws, time.perf_counter() - clock, loop)
        judged = jax.block_until_ready(programs.judge(key_weigh, loop.states))
        is_enough = until in plan.looks and _is_enough(judged)
        if is_enough or bool(np.all(np.asarray(loop.done))):
            break
    loop, judged = layout.fetch((loop, judged))
    q, state, weighted, starts, beyond = judged

    best = int(np.argmax(starts.elbo))
    history = _loop.history(loop, best)
    _end.check(programs.target, history, weighted, beyond)
    spent = programs.evaluations
    elsewhere = None
    if starts.seen is not None:
        elsewhere = (np.asarray(starts.seen[0]), np.asarray(starts.seen[1]))
    return Result(
        target=programs.target,
        method=plan.method.name,
        why=_why(spent),
        guide=q,
        state=state,
        history=history,
        converged=is_enough
        or bool(np.all(np.asarray(loop.done)[np.asarray(starts.weight) > NEGLIGIBLE_WEIGHT])),
        num_steps=len(history["value"]),
        evaluations=_loop.evaluations(loop)
        + _starts.evaluations(plan.num_starts, plan.start)
        + spent,
        # -inf is a location that a search could not evaluate
        skipped=int(np.sum(np.isnan(history["value"]))),
        starts=tuple(np.asarray(starts.elbo).tolist()),
        start_distances=tuple(np.asarray(starts.distance).tolist()),
        start_weights=tuple(np.asarray(starts.weight).tolist()),
        elsewhere=elsewhere,
        compile_seconds=compile_seconds,
        seconds=time.perf_counter() - began,
        weighted=weighted,
        why_draws=programs.why_draws,
        names=programs.target.names,
    )


def _why(spent: int) -> str:
    """What a control variate was found by."""
    if not spent:
        return ""
    return f"minibatches with a control variate at a mode, found by {spent} gradients of all rows"


def _is_enough(judged: Any) -> bool:
    """Whether the weights of what `_end.judge` gave can be trusted, and are of enough samples."""
    weighted = judged[2]
    effective = float(weighted.effective)
    is_trusted = trusted(float(weighted.k_hat), effective, len(weighted.u))
    return is_trusted and effective >= MIN_EFFECTIVE


def run_correction(
    key: Array,
    correction: Any,
    q: Any,
    *,
    target: Target,
    num_draws: int,
    watch: Watch,
) -> tuple[Any, float, float]:
    """A mixture over a guide, by values of the log density alone (`_fallback.Correction`).

    Returns:
      (guide, weighted samples, values that it took), seconds, seconds of compiling.
    """
    began = time.perf_counter()
    watch.on_phase(f"compiling {correction.what}")
    run = partial(correction.run, num_draws=num_draws)
    (program,) = compiled(
        Program(
            values_options(target, num_values=correction.most),
            lambda key, q: run(jax.random.fold_in(key, 1), target.log_density, q),
            (key, q),
        )
    )
    compile_seconds = time.perf_counter() - began
    watch.on_phase("weighing its samples")
    found = jax.block_until_ready(program(key, q))
    return found, time.perf_counter() - began, compile_seconds


def _programs(
    key: Array,
    plan: Plan,
    target: Target,
    num_draws: int | None,
    layout: Layout,
    watch: Watch,
) -> Programs:
    """Chooses the starts, and compiles the three programs of the rest at the same time."""
    method = plan.method
    most = NUM_DRAWS if num_draws is None else num_draws
    options = compiler_options(target, method, num_starts=plan.num_starts, num_draws=most)
    before = Compiler()
    choice = _starts.choice(key, target, plan.num_starts, plan.start, options.start)
    chosen = jax.eval_shape(choice.function, key)
    picking = before.add(choice)
    spent = 0
    found = None
    if _control_variate.applies(target, method, plan.num_starts):
        watch.on_phase("finding a mode of all rows")
        dtype = jnp.result_type(float) if plan.start is None else jnp.result_type(plan.start)
        search = before.add(_control_variate.search(target, dtype, options.ascent))
        found = _starts.checked(target, picking()(key))
        target, mode, spent = _control_variate.added(target, found[0], search())
        found = (mode, found[1])
    else:
        watch.on_phase("choosing where to start")

    watch.on_phase(f"compiling {method.name}")
    compiler = Compiler(layout.replicate)
    shape_u, shape_keys = layout.replicated((chosen[0][0], chosen[1]))
    begin = partial(_begin, target, method, layout)
    shape = layout.replicated(jax.eval_shape(begin, shape_keys[0], shape_u))
    last = layout.replicate(jnp.int32(0))
    advance = partial(_advance, target, method, layout)
    rest = compiler.add(Program(options.steps, advance, (shape_keys[1], shape, last)))
    first = compiler.add(Program(options.init, begin, (shape_keys[0], shape_u)))
    pace = 0.0  # seconds a gradient
    if found is None:
        # a bad density is reported here, before the rest takes its time
        picked = picking()
        clock = time.perf_counter()
        found = _starts.checked(target, picked(key))
        pace = (time.perf_counter() - clock) / _starts.evaluations(plan.num_starts, plan.start)
    u, keys = layout.replicate(found)
    num_draws, why_draws = _num_draws(num_draws, target, pace, is_spread=plan.mesh is not None)
    judge = partial(_end.judge, target, method, plan.combine, num_draws)
    last_of_all = compiler.add(Program(options.weighing, judge, (shape_keys[2], shape.states)))
    return Programs(
        begin=first(),
        advance=rest(),
        judge=last_of_all(),
        num_draws=num_draws,
        why_draws=why_draws,
        target=target,
        starts=u,
        keys=keys,
        evaluations=spent,
        place=layout.replicate,
    )


def _num_draws(
    given: int | None, target: Target, pace: float, *, is_spread: bool
) -> tuple[int, str]:
    """How many samples are weighed at the end, and why not NUM_DRAWS.

    Fewer where NUM_DRAWS values, each no dearer than a gradient of `pace` seconds, would take
    longer than WEIGHING_SECONDS; halved, so that two runs mostly agree.
    """
    if given is not None:
        return given, ""
    numbers = largest_array(target.log_density, target.size)
    if is_spread or numbers * NUM_DRAWS <= MEASURED_ABOVE:
        return NUM_DRAWS, ""
    num_draws = NUM_DRAWS
    while num_draws > LEAST_DRAWS and num_draws * pace > WEIGHING_SECONDS:
        num_draws = num_draws // 2
    if num_draws == NUM_DRAWS:
        return NUM_DRAWS, ""
    why = f"not {NUM_DRAWS:,}, since a gradient takes {1e3 * pace:.2g} ms; num_draws= sets it"
    return num_draws, why


def _layout(mesh: Mesh | None, num_starts: int) -> Layout:
    if mesh is not None and not isinstance(mesh, Mesh | AbstractMesh):
        raise TypeError(f"mesh comes from vi.shard.make_mesh(); got {describe(mesh)}.")
    if mesh is not None and num_starts % mesh.size:
        raise ValueError(
            f"{num_starts} starts do not lie evenly over {mesh.size} devices; take a multiple of "
            f"{mesh.size}."
        )
    return ALONE if mesh is None else make_layout(mesh)


def _begin(target: Target, method: Method, layout: Layout, key: Array, u: Array) -> _loop.Loop:
    return layout.gather(_loop.begin(target, method, key, layout.spread(u)))


def _advance(
    target: Target, method: Method, layout: Layout, key: Array, loop: _loop.Loop, last: Array
) -> _loop.Loop:
    return layout.gather(_loop.advance(target, method, key, loop, last, spread=layout.spread))
