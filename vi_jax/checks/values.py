"""Checks of log_joint and log q at samples of q: shapes, chance, values that are not finite, the
support of both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from vi_jax.checks.problem import (
    Problem,
    densities,
    over_rows,
    take_rows,
    wide_context,
    widened,
    with_gradients,
)
from vi_jax.checks.report import Finding, Outcome, error, flagged, undecided, warning
from vi_jax.checks.trace import first_bad, outer_products, same_trace

Array = jax.Array
NUM_DRAWS = 256


def shapes(problem: Problem) -> Outcome:
    """log_joint and log q are floating-point scalars for one z; a sample has the shape that many
    samples have.
    """
    found = []
    with wide_context(False):
        q = problem.guide
        key = problem.fold("shapes")
        z = jax.eval_shape(lambda key: q.sample(key), key)
        many = jax.eval_shape(lambda key: q.sample(key, (3,)), key)
        terms = {"log_joint": lambda z: problem.joint(z, problem.batch), "log q": q.log_prob}
        for name, term in terms.items():
            value = jax.eval_shape(term, z)
            shape = getattr(value, "shape", None)
            dtype = getattr(value, "dtype", None)
            if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
                found.append(_not_scalar(name, shape, dtype))
    expected = jax.tree.map(lambda leaf: (3, *leaf.shape), z)
    if jax.tree.map(lambda leaf: leaf.shape, many) != expected:
        message = (
            f"q.sample(key, (3,)) has leaves {_leaf_shapes(many)}, and one sample has "
            f"{_leaf_shapes(z)}: K samples expect [K, ...]."
        )
        found.append(
            error(
                "shape", message, "Put the sample shape first in every leaf that q.sample returns."
            )
        )
    return Outcome(tuple(found))


def _not_scalar(name: str, shape: Any, dtype: Any) -> Finding:
    remedy = {
        "log_joint": "Sum the log density over its observations and latents; vmap over examples "
        "outside.",
        "log q": "Give a guide of independent coordinates one event axis, q.to_event(n); vmap "
        "over examples outside.",
    }[name]
    message = (
        f"{name} is of shape {shape} and dtype {dtype} for one z; a bound expects one "
        "floating-point number, nats."
    )
    return error("shape", message, remedy)


def _leaf_shapes(tree: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in jax.tree.leaves(tree)]


def broadcasting(problem: Problem) -> Outcome:
    """No [N] meets an [N, 1] by implicit rank promotion, except where the [N, N] that it makes is
    used as a matrix.
    """
    found = []
    with wide_context(False):
        z = problem.guide.sample(problem.fold("broadcasting"))
        for promotion in outer_products(problem.joint, z, problem.batch):
            n = promotion.size
            message = (
                f"`{promotion.operation}` in log_joint meets [{n}] with [{n}, 1], and "
                f"NumPy's rules make [{n}, {n}] of them."
            )
            remedy = (
                "Give both one shape ([:, 0] or [:, None]); JAX's "
                "numpy_rank_promotion('raise') names the line."
            )
            found.append(warning("broadcast", message, remedy, size=n))
    return Outcome(tuple(found))


def chance(problem: Problem) -> Outcome:
    """log_joint of one z is one number, however often it is evaluated: two traces are alike, and
    two values where they are not.
    """
    with wide_context(False):
        z = jax.eval_shape(problem.guide.sample, problem.key)
        if same_trace(problem.joint, z, problem.batch):
            return Outcome()
        z = problem.guide.sample(problem.fold("chance"))
        values = [float(problem.joint(z, problem.batch)) for _ in range(2)]
    if values[0] == values[1] or not np.isfinite(values).all():
        return Outcome()
    remedy = (
        "Draw whatever is random (noise, dropout, a subsample) outside, from a key, and "
        "close over it."
    )
    message = "log_joint gives two values for one z: it draws from a hidden state."
    return flagged(error("random", message, remedy, first=values[0], second=values[1]))


def finite(problem: Problem) -> Outcome:
    """log_joint, log q and their gradients in z are finite at samples of q, in the precision that
    the user runs.
    """
    with wide_context(False):
        z = jax.jit(lambda key: problem.guide.sample(key, (NUM_DRAWS,)))(problem.fold("finite"))
        bad_draws = ~np.concatenate(
            [np.isfinite(np.asarray(leaf)).reshape(NUM_DRAWS, -1) for leaf in jax.tree.leaves(z)], 1
        ).all(1)
        if bad_draws.any():
            remedy = (
                "Keep scales positive and finite (softplus or exp of a bounded number) and "
                "parameters free of NaN."
            )
            share = bad_draws.mean()
            return flagged(
                error("nan", "q.sample gives values that are not finite.", remedy, share=share)
            )
        values = _values_only(problem) if problem.discrete else with_gradients(problem)
        results = over_rows(values, z, problem.batch)
        terms = densities(problem)
        found = [
            finding
            for name, result in results.items()
            for finding in _finite_term(problem, name, terms[name], z, *result)
        ]
    return Outcome(tuple(found))


def _values_only(problem: Problem) -> Callable[[Any, Any], dict[str, tuple[Array, Array]]]:
    """As `with_gradients`, the gradients being 0: of discrete latents."""
    return lambda z, batch: {
        name: (term(z, batch), jnp.zeros(1)) for name, term in densities(problem).items()
    }


def _finite_term(
    problem: Problem,
    name: str,
    term: Callable[[Any, Any], Array],
    z: Any,
    values: np.ndarray,
    gradients: np.ndarray,
) -> list[Finding]:
    wrong = np.isnan(values) | (values == np.inf)
    outside = values == -np.inf
    bad_gradient = ~np.isfinite(gradients).all(1) & ~wrong & ~outside
    found = []
    if wrong.any():
        row = take_rows(z, int(np.argmax(wrong)))
        found.append(
            _nan(name, lambda z: term(z, problem.batch), row, wrong.mean(), f"The value of {name}")
        )
    if outside.any():
        found.append(
            _outside(problem, name, term, take_rows(z, int(np.argmax(outside))), outside.mean())
        )
    if bad_gradient.any() and not wrong.any():
        row = take_rows(z, int(np.argmax(bad_gradient)))
        gradient = jax.grad(lambda z: term(z, problem.batch))
        found.append(
            _nan(
                name,
                gradient,
                row,
                bad_gradient.mean(),
                f"The gradient of {name} in z (its value is finite)",
            )
        )
    return found


def _nan(name: str, f: Callable[[Any], Any], z: Any, share: Any, what: str) -> Finding:
    origin = first_bad(f, (z,), lambda value: ~jnp.isfinite(value))
    nan_origin = first_bad(f, (z,), jnp.isnan)
    places = [f"first value that is not finite: {origin}"] if origin else []
    if nan_origin and str(nan_origin) != str(origin):
        places.append(f"first NaN: {nan_origin}")
    message = (
        f"{what} is NaN or infinite at samples of q; "
        f"{'; '.join(places) or 'its equation was not found'}."
    )
    remedy = (
        "Use the stable form there (log_sigmoid, logsumexp, log1p, xlogy, a distribution by its "
        "logits); where a `where` picks "
        "the safe branch, make its input safe too, for the gradient of the branch not taken is 0 "
        "times infinity."
    )
    return error(
        "nan", message, remedy, term=name, share=share, where=str(origin), first_nan=str(nan_origin)
    )


def _outside(
    problem: Problem, name: str, term: Callable[[Any, Any], Array], z: Any, share: Any
) -> Finding:
    origin = first_bad(lambda z: term(z, problem.batch), (z,), lambda value: value == -jnp.inf)
    if name == "log q":
        message = (
            f"log q is -inf at q's own samples (first at {origin}): its density denies what "
            "it samples."
        )
        return error(
            "sample_log_prob",
            message,
            "Make sample and log_prob agree on the support.",
            share=share,
        )
    remedy = (
        "Take a guide with the model's support: dist.TransformedDistribution(base, "
        "dist.biject_to(support))."
    )
    message = (
        f"log_joint is -inf at samples of q (first at {origin}): q puts mass where the model "
        "has none, and the ELBO is -inf."
    )
    return error("support", message, remedy, share=share, where=str(origin))


def supports(problem: Problem) -> Outcome:
    """With `support`, the model's: samples of q lie in it, and q reaches all of it."""
    if not isinstance(problem.support, constraints.Constraint):
        note = (
            "support: whether q reaches the model's support needs support=, one numpyro constraint"
        )
        if problem.support is not None:
            note += "; a pytree of them serves for coordinates only"
        return undecided(f"{note}.")
    with wide_context(problem.wide):
        q = problem.guide
        key_q, key_p = jax.random.split(problem.fold("supports"))
        z = widened(q.sample(key_q, (NUM_DRAWS,)))
        outside = 1.0 - np.mean(np.asarray(problem.support(z)))
        missed = _share_missed(q, problem.support, z, key_p)
    found = []
    if outside > 0:
        remedy = (
            "Take a guide on the model's support: dist.TransformedDistribution(base, "
            "dist.biject_to(support))."
        )
        message = f"samples of q lie outside of the model's support {problem.support}."
        found.append(error("support", message, remedy, share_outside=float(outside)))
    if missed > 0:
        remedy = (
            "Widen q's support to the model's: what q cannot reach, no bound on log p(x) "
            "can learn of."
        )
        message = (
            f"q cannot reach all of the model's support {problem.support}: its density is "
            "0 on a part of it."
        )
        found.append(error("support", message, remedy, share_missed=float(missed)))
    return Outcome(tuple(found))


def _share_missed(q: Any, support: constraints.Constraint, z: Array, key: Array) -> float:
    """Of points spread over the model's support, the share that q's support or density denies."""
    if support.is_discrete:
        return 0.0
    transform = dist.biject_to(support)
    shape = jax.eval_shape(transform.inv, z).shape
    points = transform(3.0 * jax.random.normal(key, shape))
    own = getattr(q, "support", None)
    if isinstance(own, constraints.Constraint):
        return float(1.0 - np.mean(np.asarray(own(points))))
    return float(np.mean(np.asarray(jax.vmap(q.log_prob)(points)) == -np.inf))
