"""`vi.fit`: a method, a second one where the first is not reliable, and their Result."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, overload

import jax
from jax.sharding import Mesh

from vi_jax import linalg
from vi_jax.arguments import as_count, as_key, require_function
from vi_jax.fitting import _fallback, _recentring, _starts
from vi_jax.fitting._compile import largest_array, traced_once
from vi_jax.fitting._coordinates import in_model
from vi_jax.fitting._once import MEASURED_ABOVE, NUM_DRAWS, Plan, run_correction, run_once
from vi_jax.fitting._watch import OnPhase, Report, Watch, silently
from vi_jax.fitting.local import fit_local
from vi_jax.fitting.local_result import LocalResult
from vi_jax.fitting.result import Result
from vi_jax.local.advi import LocalMethod
from vi_jax.methods.default import Choice, choose
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

COMBINE = ("best", "stack")
MIN_DRAWS = 25  # of which importance weights say anything, and whose tail is smoothed


@overload
def fit(
    key: Array,
    target: LocalTarget,
    method: LocalMethod | None = None,
    *,
    start: Array | None = None,
    num_draws: int | None = None,
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
    num_draws: int | None = None,
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
    num_draws: int | None = None,
    mesh: Mesh | None = None,
    fallback: int | None = None,
    report: Report | None = None,
    report_every: int | None = 100,
    on_phase: OnPhase | None = None,
) -> Result | LocalResult:
    """Approximates a posterior: runs a method in one compiled loop, and
    importance-weights its samples.

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
        are p over each sample's own path, by which a mode counts as often as paths ended in it;
        here they are p over the mixture.
      start: u [D] or [R, D]; else each start is the best of a few points in [-2, 2]^D.
      num_draws: S, samples that are importance-weighted at the end: values of the log density
        without gradients. If not given 4,000, up to 16,000 for `variational_newton` where it was
        picked here and values cost little, or down to 1,000 where a value of the log density is
        slow, as measured at the start: the Result's `why_draws` says so, and two runs may differ.
      mesh: devices that the starts lie over (`vi_jax.shard.make_mesh`), of one process or of many,
        which all call this alike; the numbers are those of one device.
      fallback: gradients for a second method where the first was picked here and its answer is not
        reliable: a flow on top of its Gaussian, or above 400 latents mean-field `advi`. The better
        of the two is the answer, and the Result's `fallback` says so. If not given 100,000, if no
        array that the log density goes through has more than 10,000 numbers, above 400 latents
        1,000,000 numbers, and where all data are used at each step; 0 for none.
      report: called with the step and the method's value every `report_every` steps, e.g. to print
        them. Without it, and without `on_phase`, a fit prints nothing.
      report_every: steps; None for about every two seconds, however slow a step is: after the first
        step, and then after up to twice as many (of several processes, every 100).
      on_phase: called with what begins, in words: "compiling bam", "running bam", "weighing 4,000
        samples, at most 12 min at the pace of the steps".

    Returns:
      A Result; a LocalResult for local latent variables (`fit_local` says what differs).

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
    num_draws = _count_of_draws(num_draws)
    num_starts = as_count(num_starts, "num_starts")
    watch = _watch(report, report_every, on_phase)
    if isinstance(target, LocalTarget):
        _require_no_starts(num_starts, combine, mesh, fallback)
        return fit_local(
            key,
            target,
            method,
            start=start,
            num_draws=num_draws or NUM_DRAWS,
            report=report,
            report_every=watch.every,
            on_phase=on_phase,
        )
    if isinstance(method, LocalMethod):
        raise ValueError(
            f"{method.name} is for a target with local latent variables; see "
            "vi.targets.from_local_rows."
        )
    _require_combination(combine)
    target = traced_once(target)
    _starts.require(target, num_starts, start)
    gradients = _fallback.budget(fallback, target, method, spread=mesh is not None)

    # 1. the method
    clock = time.perf_counter()
    choice = _choice(key, target, method, start, num_starts, watch)
    choosing = time.perf_counter() - clock
    # 2. its run
    num_draws = _draws(num_draws, choice, target)
    once = partial(run_once, target=target, num_draws=num_draws, watch=watch)
    first = _first(key, once, choice, Plan(choice.method, num_starts, combine, start, mesh))
    first = _with_choice(first, choice, choosing)
    # 3. where the answer is not reliable: other coordinates, a mixture, and then a second method
    if _fallback.corrects(fallback, target, method, spread=mesh is not None):
        first = _recentred(key, first, once, watch)
        first = _corrected(key, first, watch)
    once = partial(once, target=first.target)
    last = _fallback.second(first, gradients, partial(_again, key, once))
    return in_model(last, target)


def _again(key: Array, once: Callable[..., Result], method: Method, start: Array) -> Result:
    """The run of a second method."""
    looks = _fallback.looks(method.num_steps) if method.name == "flow" else ()
    return once(jax.random.fold_in(key, 1), Plan(method, start=start, looks=looks))


def _recentred(key: Array, first: Result, once: Callable[..., Result], watch: Watch) -> Result:
    """The first result, or where that is better one over other coordinates of the sites."""
    key_choice, key_run = jax.random.split(jax.random.fold_in(key, 5))

    def run(target: Target) -> Result:
        choice = _choice(key_run, target, None, None, 1, watch)
        return once(key_run, Plan(choice.method), target=target)

    return _recentring.recentred(key_choice, first, run)


def _corrected(key: Array, first: Result, watch: Watch) -> Result:
    """The first result, or a mixture over its guide where that has the better weights."""
    num_draws = len(first.weighted.u)
    run = partial(run_correction, key, target=first.target, num_draws=num_draws, watch=watch)
    return _fallback.corrected(first, run)


def _first(key: Array, run: Callable[..., Result], choice: Choice, plan: Plan) -> Result:
    """The choice's Result; where it has no finite answer, that of the method in its place, which
    says so.
    """
    try:
        return run(key, plan)
    except FloatingPointError as error:
        if choice.otherwise is None:
            raise
        failed = f"{choice.method.name} failed: {error}"
    result = run(jax.random.fold_in(key, 4), plan._replace(method=choice.otherwise))
    return replace(result, why="; ".join(filter(None, (failed, result.why))))


def _with_choice(result: Result, choice: Choice, seconds: float) -> Result:
    """The Result with what the choice of its method took, and why it was chosen."""
    return replace(
        result,
        why="; ".join(filter(None, (choice.why, result.why))),
        evaluations=result.evaluations + choice.evaluations,
        seconds=result.seconds + seconds,
    )


def _require_combination(combine: str) -> None:
    if combine not in COMBINE:
        raise ValueError(f"combine is one of {', '.join(COMBINE)}; got {combine!r}.")


def _draws(given: int | None, choice: Choice, target: Target) -> int | None:
    """More samples where the choice asks for them, and values of the log density cost little."""
    if given is not None or choice.num_draws is None:
        return given
    numbers = largest_array(target.log_density, target.size) * choice.num_draws
    return choice.num_draws if numbers <= MEASURED_ABOVE else None


def _count_of_draws(num_draws: int | None) -> int | None:
    if num_draws is None:
        return None
    return as_count(num_draws, "num_draws", least=MIN_DRAWS)


def _require_no_starts(num_starts: int, combine: str, mesh: Mesh | None, fallback: Any) -> None:
    """Raises ValueError for arguments that a target with local latent variables has not."""
    if num_starts != 1 or combine != "best" or mesh is not None or fallback:
        raise ValueError(
            "num_starts, combine, mesh and fallback are not for a target with local latent "
            "variables."
        )


def _watch(report: Report | None, every: int | None, on_phase: OnPhase | None) -> Watch:
    """What is called with reports, checked."""
    if every is not None:
        every = as_count(every, "report_every")
    for name, function in (("report", report), ("on_phase", on_phase)):
        if function is not None:
            require_function(function, "fit", name=name)
    return Watch(report, every, on_phase or silently)


def _choice(
    key: Array,
    target: Target,
    method: Method | None,
    start: Array | None,
    num_starts: int,
    watch: Watch,
) -> Choice:
    """The method, and why it: empty where the caller chose it and gets what they chose."""
    if method is None:
        watch.on_phase("choosing a method")
        choice = choose(key, target, start, num_starts=num_starts)
    else:
        choice = Choice(method, "")
    if target.sampled is not None and not choice.method.stochastic:
        return choice._replace(
            why=choice.why or "all data at each step: this method does not take minibatches"
        )
    return choice
