"""A posterior from one call.

target = vi.targets.from_numpyro(model, data)
result = vi.fit(key, target)
print(result)
draws = result.sample(key, 1_000)
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import Weighed, trusted, verdict, weigh
from vi_jax.diagnostics.psis import k_threshold
from vi_jax.methods.default import choose
from vi_jax.targets.target import Target, TargetError
from vi_jax.types import Array, Method, MethodInfo

NUM_CANDIDATES = 10  # points of which a start is the best
START_RADIUS = 2.0  # of the cube they come from, in unconstrained coordinates
SMALL = 10_000  # numbers in the largest array of a log density that XLA need not optimise
HIGH = 1e10  # nats, likewise
FAR = 1e8  # unconstrained coordinates beyond it: the density has no maximum, or no scale


class Diagnostics(NamedTuple):
    """What is known of how good the answer is; numbers in nats."""

    verdict: str  # 'reliable', 'corrected only', 'not reliable' or 'not converged'
    advice: str  # the next step to take
    elbo: float
    elbo_stderr: float
    log_evidence: float  # by importance sampling; as good as k_hat says
    log_evidence_stderr: float
    k_hat: float
    k_threshold: float
    trusted: bool  # moments by smoothed weights can be trusted
    effective: float  # draws that the weighted ones are worth
    num_draws: int
    num_bad: int  # draws at which the log density was not a number


@dataclass(frozen=True)
class Result:
    """A fitted guide, with what is known of it."""

    target: Target
    method: str
    why: str  # this method; empty where the caller chose it
    guide: Any  # over u [D]; of the best start
    state: Any  # the method's own
    history: dict[str, np.ndarray]  # value and evaluations of each step, of the best start
    converged: bool  # it stopped by its own rule
    num_steps: int
    evaluations: int  # gradients of the log density, all starts together, those that chose where to start included
    skipped: int  # steps that a log density which was not finite made useless
    starts: tuple[float, ...]  # ELBO of each start, nats
    compile_seconds: float
    seconds: float  # all in all
    weighed: Weighed = field(repr=False)
    names: tuple[str, ...] = field(repr=False, default=())

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """Of the guide against the log density, by importance sampling."""
        w = self.weighed
        num_draws, k_hat, effective = len(w.u), float(w.k_hat), float(w.effective)
        word, advice = verdict(k_hat, effective, num_draws, converged=self.converged)
        num_bad = int(w.num_bad)
        if num_bad:
            word, advice = (
                "not reliable",
                f"the log density is nan at {num_bad:,} draws of the guide: see vi.check, which names the line.",
            )
        return Diagnostics(
            verdict=word,
            advice=advice,
            elbo=float(w.elbo),
            elbo_stderr=float(w.elbo_stderr),
            log_evidence=float(w.log_evidence),
            log_evidence_stderr=float(w.log_evidence_stderr),
            k_hat=k_hat,
            k_threshold=k_threshold(num_draws),
            trusted=trusted(k_hat, effective, num_draws) and not num_bad,
            effective=effective,
            num_draws=num_draws,
            num_bad=num_bad,
        )

    def sample(self, key: Array, num_draws: int = 1000) -> Any:
        """Draws of the guide in the model's own space, a pytree of sites [num_draws, ...]."""
        return self._constrained(self.guide.sample(key, (num_draws,)))

    def resample(self, key: Array, num_draws: int = 1000) -> Any:
        """Draws from the weighted ones, with replacement: nearer to the posterior than `sample` where k-hat is good.

        Raises:
          ValueError: k-hat says that the weights cannot be trusted.
        """
        if not self.diagnostics.trusted:
            raise ValueError(f"the weights cannot be trusted (k-hat {self.diagnostics.k_hat:.2f}); {self.diagnostics.advice}")
        rows = jax.random.categorical(key, self.weighed.log_weights, shape=(num_draws,))
        return self._constrained(self.weighed.u[rows])

    def moments(self) -> dict[str, Any]:
        """{"mean", "sd"} of every site, and "corrected": by smoothed importance weights where k-hat allows, else of the guide."""
        corrected = self.diagnostics.trusted
        log_w = self.weighed.log_weights
        weights = jnp.exp(log_w) if corrected else jnp.full(log_w.shape, 1 / len(log_w), log_w.dtype)
        mean, sd = _moments(self.target.constrain, self.weighed.u, weights)
        return {"mean": jax.tree.map(np.asarray, mean), "sd": jax.tree.map(np.asarray, sd), "corrected": bool(corrected)}

    def to_arviz(self, key: Array | None = None, num_draws: int = 1000) -> Any:
        """An ArviZ InferenceData with draws as one chain, and the diagnostics as its attributes.

        Args:
          key: of the draws; the weighted draws are resampled where k-hat allows, else the guide is drawn from.
        """
        try:
            import arviz
        except ImportError as error:
            raise ImportError("to_arviz wants ArviZ: pip install arviz.") from error
        key = jax.random.key(0) if key is None else key
        draws = self.resample(key, num_draws) if self.diagnostics.trusted else self.sample(key, num_draws)
        sites = draws if isinstance(draws, dict) else {"z": draws}
        data = {name: np.asarray(value)[None] for name, value in sites.items()}
        attributes = {name: value for name, value in self.diagnostics._asdict().items() if isinstance(value, str | float | int)}
        try:
            inference = arviz.from_dict(posterior=data)
        except TypeError:  # ArviZ 1
            inference = arviz.from_dict({"posterior": data})
        inference.attrs.update({"method": self.method, **attributes})
        return inference

    def report(self) -> dict[str, Any]:
        """All of it, machine-readable: numbers and words only."""
        own = {"method": self.method, "why": self.why, "converged": self.converged, "num_steps": self.num_steps}
        work = {"evaluations": self.evaluations, "skipped": self.skipped, "seconds": self.seconds}
        return {**own, **work, "compile_seconds": self.compile_seconds, "starts": list(self.starts), **self.diagnostics._asdict()}

    def __str__(self) -> str:
        d = self.diagnostics
        good = "good" if d.k_hat < d.k_threshold else "bad"
        rows = [
            ("method", self.method + (f" ({self.why})" if self.why else "")),
            ("latents", f"{self.target.size:,} unconstrained numbers"),
            ("ELBO", f"{d.elbo:,.3f} ± {d.elbo_stderr:.3f} nats"),
            ("log evidence", f"{d.log_evidence:,.3f} ± {d.log_evidence_stderr:.3f} nats by importance sampling"),
            ("k-hat", f"{d.k_hat:.2f}, {good} (under {d.k_threshold:.2f} is good; S = {d.num_draws:,})"),
            ("effective draws", f"{d.effective:,.0f} of {d.num_draws:,}"),
            ("gradient evaluations", f"{self.evaluations:,} in {self.num_steps:,} steps"),
            ("time", f"{self.seconds:.1f} s, of which compiling {self.compile_seconds:.1f} s"),
        ]
        if len(self.starts) > 1:
            rows.append(
                ("starts", f"{len(self.starts)}: ELBO {min(self.starts):,.2f} .. {max(self.starts):,.2f} nats; the best is kept")
            )
        if self.skipped or d.num_bad:
            rows.append(("not finite", f"{self.skipped:,} steps skipped, {d.num_bad:,} draws of weight 0"))
        rows += [("verdict", d.verdict), ("next", d.advice)]
        return "\n".join(f"{name:<21}{text}" for name, text in rows)

    def _constrained(self, u: Array) -> Any:
        return jax.jit(jax.vmap(self.target.constrain))(u)


def _moments(constrain: Callable[[Array], Any], u: Array, weights: Array) -> tuple[Any, Any]:
    def both(u: Array, weights: Array) -> tuple[Any, Any]:
        z = jax.vmap(constrain)(u)
        mean = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), z)
        return mean, jax.tree.map(lambda leaf, m: jnp.sqrt(jnp.tensordot(weights, (leaf - m) ** 2, 1)), z, mean)

    return jax.jit(both)(u, weights)


def fit(
    key: Array,
    target: Target,
    method: Method | None = None,
    *,
    num_starts: int = 1,
    start: Array | None = None,
    num_draws: int = 4000,
    report: Callable[[int, float], None] | None = None,
    report_every: int = 100,
) -> Result:
    """Approximates a posterior: runs a method in one compiled loop, and weighs its draws.

    Args:
      key: one typed PRNG key: everything random follows from it.
      target: see `vi_jax.targets`.
      method: see `vi_jax.methods`; chosen by the number of latents and by whether data are subsampled if not given.
      num_starts: R starts under one vmap; the one of highest ELBO is kept.
      start: u [D] or [R, D]; else each start is the best of a few points in [-2, 2]^D.
      num_draws: S, draws that are weighed at the end, values of the log density without gradients.
      report: called with the step and the method's value every `report_every` steps, e.g. to print them.

    Returns:
      A Result.

    Raises:
      TargetError: the log density is not finite at any start, not differentiable, flat, or unbounded above; names the site.
      FloatingPointError: every step, or the answer, was not finite; names the step.
      ValueError: arguments that do not go together.
    """
    began = time.perf_counter()
    why = ""
    if method is None:
        method, why = choose(target)
    if target.sampled is not None and not method.stochastic:
        why = why or "all data at each step: this method does not take minibatches"
    _require(target, num_starts, start)
    key_start, key_init, key_run, key_weigh = jax.random.split(key, 4)
    density_at = _densities(target, method)
    each = _over_starts(num_starts)

    def starts_of(key: Array) -> tuple[Array, Array, Array, Array]:
        return _pick_starts(key, target, num_starts, start)

    history_size = method.num_steps

    def begin(key: Array, u: Array) -> _Loop:
        def one(key: Array, u: Array) -> Any:
            key_rows, key_method = jax.random.split(key)
            return method.init(key_method, density_at(key_rows), u)

        states = each(one, jax.random.split(key, num_starts), u)
        empty = jnp.full((num_starts, history_size), jnp.nan, u.dtype)
        zeros = jnp.zeros((num_starts, history_size), jnp.int32)
        return _Loop(states, empty, zeros, jnp.zeros(num_starts, bool), jnp.zeros(num_starts, jnp.int32), jnp.int32(0))

    def advance(key: Array, loop: _Loop, last: Array) -> _Loop:
        def one(which: Array, state: Any, done: Array, number: Array) -> tuple[Any, MethodInfo]:
            key_step, key_rows = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, which), number))
            new, info = method.step(key_step, density_at(key_rows), state)
            return jax.tree.map(lambda a, b: jnp.where(done, b, a), new, state), info

        def step(loop: _Loop) -> _Loop:
            states, info = each(
                lambda r, state, done: one(r, state, done, loop.step), jnp.arange(num_starts), loop.states, loop.done
            )
            value = jnp.where(loop.done, jnp.nan, info.value).astype(loop.values.dtype)
            return _Loop(
                states,
                loop.values.at[:, loop.step].set(value),
                loop.evaluations.at[:, loop.step].set(info.evaluations),
                loop.done | info.done,
                jnp.where(loop.done, loop.steps, loop.step + 1),
                loop.step + 1,
            )

        return jax.lax.while_loop(lambda loop: (loop.step < last) & ~jnp.all(loop.done), step, loop)

    def both(key_init: Array, key_run: Array, u: Array, last: Array) -> _Loop:
        return advance(key_run, begin(key_init, u), last)

    def weigh_all(key: Array, states: Any) -> tuple[Any, Weighed, Array]:
        elbos = jnp.zeros(num_starts)
        key_elbo, key_draws = jax.random.split(key)
        if num_starts > 1:
            keys = jax.random.split(key_elbo, num_starts)
            elbos = jax.vmap(lambda key, state: _elbo(key, target, method.guide(state)))(keys, states)
            elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
        q = method.guide(jax.tree.map(lambda leaf: leaf[jnp.argmax(elbos)], states))
        weighed = weigh(key_draws, target.log_density, q, num_draws=num_draws)
        return q, weighed, elbos if num_starts > 1 else weighed.elbo[None]

    block = jnp.int32(history_size if report is None else min(report_every, history_size))
    clock = time.perf_counter()
    u_shape = jax.eval_shape(starts_of, key_start)[0]
    loop_shape = jax.eval_shape(both, key_init, key_run, u_shape, block)
    options = _compiler_options(target)
    (pick,) = _compiled(options, (starts_of, (key_start,)))
    u, values, slopes, flat = pick(key_start)
    _check_start(target, np.asarray(u), np.asarray(values), np.asarray(slopes), flat=bool(flat))  # before the rest takes its time
    run, weigh_best = _compiled(options, (both, (key_init, key_run, u_shape, block)), (weigh_all, (key_weigh, loop_shape.states)))
    compile_seconds = time.perf_counter() - clock

    loop = run(key_init, key_run, u, block)
    if report is not None:
        again = None
        while True:
            last = int(loop.step)
            report(last, float(np.nanmax(np.asarray(loop.values[:, last - 1]), initial=-np.inf)))
            if last >= history_size or bool(loop.done.all()):
                break
            if again is None:
                clock = time.perf_counter()
                (again,) = _compiled(options, (advance, (key_run, loop_shape, block)))
                compile_seconds += time.perf_counter() - clock
            loop = again(key_run, loop, jnp.minimum(loop.step + block, history_size))

    q, weighed, elbos = jax.block_until_ready(weigh_best(key_weigh, loop.states))
    best = int(np.argmax(elbos))
    history, steps = _history(loop, best)
    _check_end(target, q, history, weighed)
    used = np.asarray(loop.evaluations)[np.arange(num_starts), np.maximum(np.asarray(loop.steps) - 1, 0)]
    return Result(
        target=target,
        method=method.name,
        why=why,
        guide=q,
        state=jax.tree.map(lambda leaf: leaf[best], loop.states),
        history=history,
        converged=bool(loop.done[best]),
        num_steps=steps,
        evaluations=int(used.sum()) + num_starts * (NUM_CANDIDATES if start is None else 1),
        skipped=int(np.sum(np.isnan(history["value"]))),  # -inf is a place that an ascent has not been able to measure
        starts=tuple(float(elbo) for elbo in np.asarray(elbos)),
        compile_seconds=compile_seconds,
        seconds=time.perf_counter() - began,
        weighed=weighed,
        names=target.names,
    )


class _Loop(NamedTuple):
    states: Any  # [R, ...]
    values: Array  # [R, num_steps]
    evaluations: Array  # [R, num_steps]
    done: Array  # [R]
    steps: Array  # [R], steps taken
    step: Array


def _compiled(options: dict[str, Any], *programs: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Callable[..., Any]]:
    """Compiles functions for their arguments side by side: XLA takes its time without holding Python."""
    lowered = [jax.jit(f).lower(*args) for f, args in programs]
    with ThreadPoolExecutor(len(lowered)) as threads:
        return list(threads.map(lambda program: program.compile(compiler_options=options), lowered))


def _compiler_options(target: Target) -> dict[str, Any]:
    """A density whose arrays are small runs for less time than XLA takes to optimise it on a CPU: let it not."""
    if jax.default_backend() != "cpu":
        return {}
    u = jax.ShapeDtypeStruct((target.size,), jnp.result_type(float))
    equations = jax.make_jaxpr(target.log_density)(u).eqns
    largest = max(
        (math.prod(getattr(var.aval, "shape", ())) for eqn in equations for var in [*eqn.invars, *eqn.outvars]), default=0
    )
    return {"xla_backend_optimization_level": 0} if largest <= SMALL else {}


def _over_starts(num_starts: int) -> Callable[..., Any]:
    """vmap over the leading axis R; one start goes without, for a smaller program."""

    def alone(f: Callable[..., Any], *args: Any) -> Any:
        out = f(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], out)

    return alone if num_starts == 1 else lambda f, *args: jax.vmap(f)(*args)


def _densities(target: Target, method: Method) -> Callable[[Array], Any]:
    """key -> the log density of a step: on a minibatch where the target has them and the method takes them."""
    if target.sampled is not None and method.stochastic:
        return target.sampled
    return lambda key: target.log_density


def _require(target: Target, num_starts: int, start: Array | None) -> None:
    if num_starts < 1:
        raise ValueError(f"num_starts is at least 1; got {num_starts}.")
    if start is not None and np.shape(start) not in ((target.size,), (num_starts, target.size)):
        raise ValueError(
            f"start wants shape ({target.size},) or ({num_starts}, {target.size}), unconstrained; got {np.shape(start)}."
        )
    try:
        jax.eval_shape(jax.grad(target.log_density), jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)))
    except (TypeError, ValueError, NotImplementedError) as error:
        if isinstance(error, TargetError):
            raise
        raise TargetError(f"the log density cannot be differentiated: {str(error).splitlines()[0]}") from error


def _pick_starts(key: Array, target: Target, num_starts: int, start: Array | None) -> tuple[Array, Array, Array, Array]:
    """u [R, D], values [R], gradients [R, D], and whether the gradients at several points are all exactly 0.

    The points are those asked for; else of a few of a cube each, the one of highest density (the origin is among the first's).
    """
    num = 1 if start is not None else NUM_CANDIDATES
    shape = (num_starts, num, target.size)
    if start is None:
        points = jax.random.uniform(key, shape, minval=-START_RADIUS, maxval=START_RADIUS).at[0, 0].set(0.0)
    else:
        points = jnp.broadcast_to(jnp.asarray(start), (num_starts, target.size))[:, None]
    values, slopes = jax.lax.map(jax.value_and_grad(target.log_density), points.reshape(-1, target.size), batch_size=num)
    values, slopes = values.reshape(shape[:2]), slopes.reshape(shape)
    good = jnp.isfinite(values) & jnp.all(jnp.isfinite(slopes), axis=-1)
    best = jnp.argmax(jnp.where(good, values, -jnp.inf), axis=1)
    rows = jnp.arange(num_starts)
    flat = jnp.all(slopes == 0) & (num > 1)  # at one point it may be the mode
    return points[rows, best], values[rows, best], slopes[rows, best], flat


def _check_start(target: Target, u: np.ndarray, values: np.ndarray, slopes: np.ndarray, *, flat: bool) -> None:
    for point, value, slope in zip(u, values, slopes, strict=True):
        if not np.isfinite(value):
            site = target.explain(jnp.asarray(point)) if target.explain else ""
            raise TargetError(
                f"the log density is {value} at the start{f': {site}' if site else ''}. Check the data and the constraints, "
                "or give a start= where it is finite."
            )
        if not np.all(np.isfinite(slope)):
            bad = [name for name, s in zip(target.names, slope, strict=True) if not np.isfinite(s)]
            raise TargetError(
                f"the gradient of the log density is not finite at the start, in {', '.join(bad[:5])}: look for a sqrt, log or "
                "norm at its edge, and for jnp.where with a branch that is not finite."
            )
    if flat:
        raise TargetError(
            "the gradient of the log density is exactly 0 at the start, in all coordinates: it is flat, rounded, or detached "
            "(stop_gradient, an integer cast); give one that is differentiable."
        )


def _elbo(key: Array, target: Target, q: Any) -> Array:
    u = q.sample(key, (100,))
    return jnp.mean(jax.lax.map(target.log_density, u, batch_size=25) - jax.vmap(q.log_prob)(u))


def _history(loop: _Loop, best: int) -> tuple[dict[str, np.ndarray], int]:
    steps = int(loop.steps[best])
    values, evaluations = np.asarray(loop.values[best, :steps]), np.asarray(loop.evaluations[best, :steps])
    return {"value": values, "evaluations": evaluations}, steps


def _check_end(target: Target, q: Any, history: dict[str, np.ndarray], weighed: Weighed) -> None:
    """Raises where there is no answer."""
    values, u = history["value"], np.asarray(weighed.u)
    if not np.all(np.isfinite(u)):
        first = int(np.argmax(~np.isfinite(values))) if not np.all(np.isfinite(values)) else len(values)
        bad = [name for name, column in zip(target.names, u.T, strict=True) if not np.all(np.isfinite(column))]
        raise FloatingPointError(f"the guide is not finite, in {', '.join(bad[:5])}; the first such value was at step {first}.")
    if len(values) and not np.any(np.isfinite(values)):
        site = target.explain(jnp.asarray(u[0])) if target.explain else ""
        raise FloatingPointError(f"the log density was not finite at any draw of step 0 and after{f': {site}' if site else ''}.")
    far = np.median(np.abs(u), axis=0)
    high = np.max(values, initial=-np.inf, where=np.isfinite(values))
    if far.max() > FAR or high > HIGH:
        raise TargetError(
            f"the log density seems unbounded above: {target.names[int(far.argmax())]} went to {u[0, int(far.argmax())]:.1e} "
            f"(unconstrained), the value to {high:.1e} nats. Give it a proper prior."
        )
