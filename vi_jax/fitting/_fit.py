"""`vi.fit`: the start, the loop and the weighing, one after another."""

import time
from dataclasses import replace
from functools import partial
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from vi_jax import linalg
from vi_jax.arguments import as_count, as_key, describe, require_function
from vi_jax.fitting import _anchor, _end, _fallback, _loop, _starts
from vi_jax.fitting._compile import Options, Program, compiled, compiler_options, traced_once
from vi_jax.fitting._watch import OnPhase, Report, Watch, run_loop, silently, weighing
from vi_jax.fitting.local import LocalResult, fit_local
from vi_jax.fitting.result import Result
from vi_jax.methods.default import Choice, choose
from vi_jax.methods.local_advi import LocalMethod
from vi_jax.shard import Layout, make_layout
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

COMBINE = ("best", "stack")
MIN_DRAWS = 5  # of which importance weights say anything
NOTHING = 1e-3  # weight of a start that need not have converged


@overload
def fit(
    key: Array,
    target: LocalTarget,
    method: LocalMethod | None = None,
    *,
    start: Array | None = None,
    num_draws: int = 4000,
    report: Report | None = None,
    report_every: int | None = 100,
    on_phase: OnPhase | None = None,
) -> LocalResult: ...


@overload
def fit(
    key: Array,
    target: Target,
    method: Method | None = None,
    *,
    num_starts: int = 1,
    combine: str = "best",
    start: Array | None = None,
    num_draws: int = 4000,
    mesh: Mesh | None = None,
    fallback: int | None = None,
    report: Report | None = None,
    report_every: int | None = 100,
    on_phase: OnPhase | None = None,
) -> Result: ...


@linalg.one_blas_thread()
def fit(
    key: Array,
    target: Target | LocalTarget,
    method: Method | LocalMethod | None = None,
    *,
    num_starts: int = 1,
    combine: str = "best",
    start: Array | None = None,
    num_draws: int = 4000,
    mesh: Mesh | None = None,
    fallback: int | None = None,
    report: Report | None = None,
    report_every: int | None = 100,
    on_phase: OnPhase | None = None,
) -> Result | LocalResult:
    """Approximates a posterior: runs a method in one compiled loop, and weighs its draws.

    Args:
      key: one typed PRNG key: everything random follows from it.
      target: see `vi_jax.targets`.
      method: see `vi_jax.methods`; chosen by the number of latents, by whether data are subsampled
        and, above 400 latents, by whether the log density is smooth if not given
        (`vi_jax.methods.default`).
      num_starts: R starts under one vmap.
      combine: "best" keeps the start of highest ELBO. "stack" takes all: the mixture of their
        guides, its weights those that are nearest to the posterior, so that modes weigh what their
        mass is (`vi_jax.fitting.stack_weights`); with `pathfinder` this is multi-path Pathfinder
        (Zhang et al. 2022), `resample` its resampling by Pareto-smoothed weights. There the weights
        are p over each draw's own path, by which a mode counts as often as paths ended in it; here
        they are p over the mixture.
      start: u [D] or [R, D]; else each start is the best of a few points in [-2, 2]^D.
      num_draws: S, draws that are weighed at the end, values of the log density without gradients.
      mesh: devices that the starts lie over (`vi_jax.shard.make_mesh`), of one process or of many,
        which all call this alike; the numbers are those of one device.
      fallback: gradients for a second method where the first was picked here and its answer is not
        reliable: a flow on top of its Gaussian, or above 400 latents mean-field `advi`. The better
          of the two is the answer, and the Result's `fallback` says
        so. If not given 100,000, if no array that the log density goes through has more than 10,000
        numbers, above 400 latents 1,000,000 numbers, and where all data are used at each step; 0
        for none.
      report: called with the step and the method's value every `report_every` steps, e.g. to print
        them. Without it, and without `on_phase`, a fit prints nothing.
      report_every: steps; None for about every two seconds, however slow a step is: after the first
        step, and then after up to twice as many (of several processes, every 100).
      on_phase: called with what begins, in words: "compiling bam", "running bam", "weighing 4,000
        samples, at most 12 min at the pace of the steps".

    Returns:
      A Result; a LocalResult where rows have latents of their own (`fit_local` has what is
      particular to them).

    Raises:
      TargetError: the log density is not finite at any start, not differentiable, flat, or
        unbounded above; names the site.
      FloatingPointError: every step, or the answer, was not finite; names the step.
      TypeError: an argument of another kind: no key, a function in the place of a target, a method
        by its name or one that has not been called.
      ValueError: numbers out of range, or arguments that do not go together.
    """
    key = as_key(key, "fit")
    _starts.require_target(target)
    _starts.require_method(method)
    num_draws = as_count(num_draws, "num_draws", least=MIN_DRAWS)
    num_starts = as_count(num_starts, "num_starts")
    if report_every is not None:
        report_every = as_count(report_every, "report_every")
    for name, function in (("report", report), ("on_phase", on_phase)):
        if function is not None:
            require_function(function, "fit", name=name)
    if isinstance(target, LocalTarget):
        if num_starts != 1 or combine != "best" or mesh is not None or fallback:
            raise ValueError(
                "num_starts, combine, mesh and fallback are not for a target whose rows have "
                "latents of their own."
            )
        return fit_local(
            key,
            target,
            method,
            start=start,
            num_draws=num_draws,
            report=report,
            report_every=report_every,
            on_phase=on_phase,
        )
    if isinstance(method, LocalMethod):
        raise ValueError(
            f"{method.name} is for a target whose rows have latents of their own; see "
            "vi.targets.from_local_rows."
        )
    if combine not in COMBINE:
        raise ValueError(f"combine is one of {', '.join(COMBINE)}; got {combine!r}.")
    target = traced_once(target)
    _starts.require(target, num_starts, start)
    gradients = _fallback.budget(fallback, target, method, spread=mesh is not None)
    key_again = jax.random.fold_in(key, 1)
    watch = Watch(report, report_every, on_phase or silently)
    clock = time.perf_counter()
    if method is None:
        watch.on_phase("choosing a method")
    choice = _choice(jax.random.fold_in(key, 2), target, method, start, num_starts)
    choosing = time.perf_counter() - clock
    once = partial(_once, target=target, num_draws=num_draws, watch=watch)
    first = once(
        key, method=choice.method, num_starts=num_starts, combine=combine, start=start, mesh=mesh
    )
    again = partial(once, key_again, num_starts=1, combine="best", mesh=None)
    return _fallback.second(
        replace(
            first,
            why="; ".join(filter(None, (choice.why, first.why))),
            evaluations=first.evaluations + choice.evaluations,
            seconds=first.seconds + choosing,
        ),
        gradients,
        lambda method, start: again(method=method, start=start),
    )


def _once(
    key: Array,
    *,
    target: Target,
    method: Method,
    num_starts: int,
    combine: str,
    start: Array | None,
    num_draws: int,
    mesh: Mesh | None,
    watch: Watch,
) -> Result:
    """One method from its starts to its Result."""
    began = time.perf_counter()
    layout = _layout(mesh, num_starts)
    key_start, key_init, key_run, key_weigh = jax.random.split(key, 4)

    clock = time.perf_counter()
    options = compiler_options(target, method, num_starts=num_starts, num_draws=num_draws)
    is_anchored = _anchor.wanted(target, method, num_starts)
    watch.on_phase("finding a mode of all rows" if is_anchored else "choosing where to start")
    target, u, anchoring = _started(key_start, target, method, num_starts, start, options)
    place = (lambda array: array) if layout is None else layout.replicate
    key_init, key_run, key_weigh, u = place((key_init, key_run, key_weigh, u))
    begin = partial(_begin, target, method, layout)
    shape = jax.eval_shape(begin, key_init, u)
    shape = shape if layout is None else layout.replicated(shape)
    last = place(jnp.int32(0))
    watch.on_phase(f"compiling {method.name}")
    first, advance, judged = compiled(
        Program(options.init, begin, (key_init, u)),
        Program(options.steps, partial(_advance, target, method, layout), (key_run, shape, last)),
        Program(
            options.weighing,
            partial(_end.judge, target, method, combine, num_draws),
            (key_weigh, shape.states),
        ),
        place=place,
    )
    compile_seconds = time.perf_counter() - clock

    clock = time.perf_counter()
    watch.on_phase(f"starting {method.name}")
    loop = jax.block_until_ready(first(key_init, u))
    watch.on_phase(f"running {method.name}")
    loop = run_loop(watch, partial(advance, key_run), loop, place)
    weighing(watch, num_draws, time.perf_counter() - clock, loop)
    q, weighed, starts, beyond = jax.block_until_ready(judged(key_weigh, loop.states))
    if layout is not None:
        loop, q, weighed, starts, beyond = layout.fetch((loop, q, weighed, starts, beyond))
    best = int(np.argmax(starts.elbo))
    history = _loop.history(loop, best)
    _end.check(target, history, weighed, beyond)
    return Result(
        target=target,
        method=method.name,
        why=f"minibatches about a mode of all rows, found by {anchoring} gradients over them"
        if anchoring
        else "",
        guide=q,
        state=jax.tree.map(lambda leaf: leaf[best], loop.states),
        history=history,
        converged=bool(np.all(np.asarray(loop.done)[np.asarray(starts.weight) > NOTHING])),
        num_steps=len(history["value"]),
        evaluations=_loop.evaluations(loop) + _starts.evaluations(num_starts, start) + anchoring,
        # -inf is a place that an ascent has not been able to measure
        skipped=int(np.sum(np.isnan(history["value"]))),
        starts=tuple(np.asarray(starts.elbo).tolist()),
        start_distances=tuple(np.asarray(starts.distance).tolist()),
        start_weights=tuple(np.asarray(starts.weight).tolist()),
        elsewhere=None
        if starts.seen is None
        else (np.asarray(starts.seen[0]), np.asarray(starts.seen[1])),
        compile_seconds=compile_seconds,
        seconds=time.perf_counter() - began,
        weighed=weighed,
        names=target.names,
    )


def _started(
    key: Array,
    target: Target,
    method: Method,
    num_starts: int,
    start: Array | None,
    options: Options,
) -> tuple[Target, Array, int]:
    """The target as the method will see it, starts u [R, D], and the gradients of all rows behind
    minibatches about a mode.

    A bad density is told here, before the rest takes its time.
    """
    choice = _starts.choice(key, target, num_starts, start, options.start)
    if not _anchor.wanted(target, method, num_starts):
        (pick,) = compiled(choice)
        return target, _starts.checked(target, pick(key)), 0
    dtype = jnp.result_type(float) if start is None else jnp.result_type(start)
    pick, climb = compiled(choice, _anchor.climb(target, dtype, options.ascent))
    return _anchor.anchored(target, _starts.checked(target, pick(key)), climb)


def _choice(
    key: Array, target: Target, method: Method | None, start: Array | None, num_starts: int
) -> Choice:
    """The method, and why it: empty where the caller chose it and gets what was asked for."""
    choice = (
        choose(key, target, start, num_starts=num_starts) if method is None else Choice(method, "")
    )
    if target.sampled is not None and not choice.method.stochastic:
        return choice._replace(
            why=choice.why or "all data at each step: this method does not take minibatches"
        )
    return choice


def _layout(mesh: Mesh | None, num_starts: int) -> Layout | None:
    if mesh is not None and not isinstance(mesh, Mesh | AbstractMesh):
        raise TypeError(f"mesh comes from vi.shard.make_mesh(); got {describe(mesh)}.")
    if mesh is not None and num_starts % mesh.size:
        raise ValueError(
            f"{num_starts} starts do not lie evenly over {mesh.size} devices; take a multiple of "
            f"{mesh.size}."
        )
    return None if mesh is None else make_layout(mesh)


def _begin(
    target: Target, method: Method, layout: Layout | None, key: Array, u: Array
) -> _loop.Loop:
    if layout is None:
        return _loop.begin(target, method, key, u)
    return layout.gather(_loop.begin(target, method, key, layout.spread(u)))


def _advance(
    target: Target, method: Method, layout: Layout | None, key: Array, loop: _loop.Loop, last: Array
) -> _loop.Loop:
    if layout is None:
        return _loop.advance(target, method, key, loop, last)
    return layout.gather(_loop.advance(target, method, key, loop, last, spread=layout.spread))
