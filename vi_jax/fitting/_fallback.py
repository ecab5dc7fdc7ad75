"""The fallbacks of `vi.fit` where the first method's answer is not reliable: a mixture by values
alone, then within a budget of gradients a flow on top of a dense Gaussian, or mean field where
pathfinder's was of low rank.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.diagnostics.posterior import MIN_SHARE, WeightedSamples
from vi_jax.families import mean_field
from vi_jax.fitting import population
from vi_jax.fitting._compile import SMALL_DENSITY, largest_array
from vi_jax.fitting.defensive import NUM_PILOT, widened
from vi_jax.fitting.result import Result
from vi_jax.methods.advi import advi
from vi_jax.methods.default import FULL_RANK_UP_TO
from vi_jax.methods.flow import flow
from vi_jax.methods.pathfinder import FactoredNormal
from vi_jax.targets.target import Target, TargetError
from vi_jax.types import LogDensity, Method, MethodInfo

BUDGET = 100_000  # gradients, where the log density is small
FLOW_DRAWS = 64  # gradients a step
# numbers in the largest array, where there are many latents: mean field needs half of the
# gradients
SMALL_WIDE_DENSITY = 1_000_000
MEAN_FIELD_DRAWS = 10  # gradients a step
MIN_STEPS = 100
MIN_STDERRS = 3.0  # by which the second ELBO has to be higher


class Correction(NamedTuple):
    """A mixture over a guide, by values of the log density."""

    name: str  # before that of the guide's method
    what: str  # in words
    # (key, log density, guide, num_draws=S) -> (guide, weighted samples, values that it took)
    run: Callable[..., tuple[Any, WeightedSamples, Any]]
    most: int  # values that it takes at most


def budget(given: int | None, target: Target, method: Method | None, *, spread: bool) -> int:
    """Gradients that the second method may take, 0 for none.

    Raises:
      ValueError: it was given, and cannot be used.
    """
    is_possible = method is None and not spread and target.sampled is None
    if given and not is_possible:
        raise ValueError(
            "fallback goes with the method that vi.fit picks for all data on one device; for "
            "more than that, run vi.methods.flow(start=method) where the answer is not reliable."
        )
    least = MIN_STEPS * FLOW_DRAWS
    if given and given < least:
        raise ValueError(f"fallback is 0, or at least {least:,} gradients; got {given}.")
    if not is_possible or target.size < 2:
        return 0
    if given is not None:
        return given
    numbers = largest_array(target.log_density, target.size)
    most = SMALL_WIDE_DENSITY if target.size > FULL_RANK_UP_TO else SMALL_DENSITY
    return BUDGET if numbers <= most else 0


def corrects(given: int | None, target: Target, method: Method | None, *, spread: bool) -> bool:
    """Whether a mixture may be tried, which takes values and no gradients."""
    return given != 0 and method is None and not spread and target.sampled is None


def correction(first: Result) -> Correction | None:
    """The mixture that what is wrong with a result's weights asks for; None where none would help.

    Few latents take an adapted mixture whatever is wrong. For more, a tail that is too light is
    what wider copies mend; few effective samples say that the shape is wrong, which they are not
    going to mend.
    """
    q = first.guide
    if not is_curable(first) or first.by_weights[0] != "not reliable":
        return None
    d = first.diagnostics
    if first.target.size <= population.UP_TO and isinstance(q, dist.MultivariateNormal):
        most = population.MAX_ROUNDS * d.num_draws
        return Correction("Student mixture after", "an adapted mixture", _adapted, most)
    if d.effective >= MIN_SHARE * d.num_draws:
        most = NUM_PILOT + d.num_draws
        return Correction("defensive mixture of", "a mixture with wider copies", widened, most)
    return None


def corrected(
    first: Result,
    run: Callable[[Correction, Any], tuple[tuple[Any, WeightedSamples, Any], float, float]],
) -> Result:
    """The first result, or where a mixture over its guide has the better weights that one's.

    Args:
      run: (correction, guide) -> ((guide, weighted samples, values), seconds, of them compiling).
    """
    cure = correction(first)
    if cure is None:
        return first
    (q, weighted, num_values), seconds, compile_seconds = run(cure, first.guide)
    other = replace(
        first,
        method=f"{cure.name} {first.method}",
        guide=q,
        weighted=weighted,
        starts=(float(weighted.elbo), *first.starts[1:]),
    )
    tried = f"{was(first)}; {cure.what} by {int(num_values):,} values"
    o = other.diagnostics
    if o.trusted:
        kept = replace(other, fallback=f"{tried} is better")
    else:
        word = f"k-hat {o.k_hat:.2f}, {o.effective:,.0f} effective samples"
        kept = replace(first, fallback=f"{tried} is no better: {word}")
    return replace(
        kept,
        seconds=first.seconds + seconds,
        compile_seconds=first.compile_seconds + compile_seconds,
    )


def _adapted(
    key: Any, log_density: LogDensity, q: Any, *, num_draws: int
) -> tuple[Any, WeightedSamples, Any]:
    return population.adapted(key, log_density, q.loc, q.scale_tril, num_draws=num_draws)


def was(first: Result) -> str:
    """What was wrong with the weights, and what was tried for it already."""
    d = first.diagnostics
    return first.fallback or f"k-hat was {d.k_hat:.2f}, with {d.effective:,.0f} effective samples"


def is_curable(first: Result) -> bool:
    # not for other modes, or digits: no guide about one mode finds those
    return not first.diagnostics.num_bad and not first.blurred


def second(first: Result, gradients: int, run: Callable[[Method, Any], Result]) -> Result:
    """The first result, or where it is not reliable the better of it and a second method's, which
    says so and counts both.

    Args:
      gradients: that the second may take; at 0 nothing is tried.
      run: (method, start [D]) -> Result.
    """
    q = first.guide
    is_poor = first.by_weights[0] == "not reliable"
    is_gaussian = isinstance(q, dist.MultivariateNormal | FactoredNormal)
    if not (gradients and is_poor and is_curable(first) and is_gaussian):
        return first
    tried = was(first)
    method, name, what = _richer(q, gradients)
    try:
        other = run(method, q.loc)
    except (FloatingPointError, TargetError) as error:
        return replace(first, fallback=f"{tried}; {what} failed: {error}")
    starts = {
        field: getattr(first, field)
        for field in ("starts", "start_distances", "start_weights", "elsewhere")
    }
    other = replace(other, method=f"{name} {first.method}", why=first.why, **starts)
    return better(first, other, f"{tried}; {what}, {other.evaluations:,} gradients,")


def better(first: Result, other: Result, tried: str) -> Result:
    """The other result where it alone can be trusted, or has the higher ELBO; else the first. It
    says what was tried, and counts both.
    """
    o = other.diagnostics
    d = first.diagnostics
    margin = MIN_STDERRS * (o.elbo_stderr + d.elbo_stderr)
    is_better = (o.trusted and not d.trusted) or o.elbo > d.elbo + margin
    if is_better:
        kept = replace(other, fallback=f"{tried} is better")
    else:
        word = f"k-hat {o.k_hat:.2f}, ELBO {o.elbo:,.2f} nats"
        kept = replace(first, fallback=f"{tried} is no better: {word}")
    return replace(
        kept,
        evaluations=first.evaluations + other.evaluations,
        seconds=first.seconds + other.seconds,
        compile_seconds=first.compile_seconds + other.compile_seconds,
    )


def _richer(q: Any, gradients: int) -> tuple[Method, str, str]:
    """The second method, from the Gaussian q; its name before that of the first, and in words."""
    if not isinstance(q, FactoredNormal):
        num_steps = gradients // FLOW_DRAWS
        method = flow(
            start=_held(q),
            num_draws=FLOW_DRAWS,
            num_steps=num_steps,
            restarts=looks(num_steps),
        )
        return method, "flow on", "a flow on top"
    ascent = min(200, gradients // 20)
    method = advi(
        mean_field,
        num_draws=MEAN_FIELD_DRAWS,
        max_ascent=ascent,
        num_steps=(gradients - ascent) // MEAN_FIELD_DRAWS - 1,
    )
    return method, "advi after", "mean field by stochastic gradients"


def looks(num_steps: int) -> tuple[int, ...]:
    """Steps of a flow at which a quarter and half of its budget are spent: where its answer can be
    trusted then, by enough samples, that is the end.
    """
    first = num_steps // 4
    return (first, 2 * first) if first >= MIN_STEPS else ()


def _held(q: Any) -> Method:
    """A Gaussian that is found already, as the start of a flow: no gradient."""

    def step(key: Any, log_density: Any, state: Any) -> tuple[Any, MethodInfo]:
        return state, MethodInfo(jnp.zeros((), state[0].dtype), jnp.int32(0), jnp.bool_(True))

    return Method(
        "held",
        lambda key, log_density, start: (q.loc, q.scale_tril),
        step,
        lambda state: dist.MultivariateNormal(state[0], scale_tril=state[1], validate_args=False),
        1,
    )
