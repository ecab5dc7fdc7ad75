"""The closed-form KL of a pair of distributions, through `expand`, `mask` and independent axes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.distribution import ExpandedDistribution, MaskedDistribution
from numpyro.distributions.kl import kl_divergence as numpyro_kl_divergence

from vi_jax.arguments import require_pair
from vi_jax.distributions import Program
from vi_jax.kl import discrete, scalars
from vi_jax.kl.gaussians import rule_of_vectors

Array = jax.Array

RULES = [*scalars.RULES, *discrete.RULES]


def kl_divergence(q: Any, p: Any) -> Array:
    """KL(q || p) in closed form, or an error: never an estimate or a bound in its place.

    Gaussians of any two forms (diagonal, full, low-rank plus diagonal, by the factor of the
    precision); the guide of `families.rank_one_precision` from a diagonal one; Bernoulli,
    categorical and one-hot, by logits or probabilities; normal, half-normal, log-normal, Laplace,
    exponential, Poisson, gamma, log-gamma, inverse gamma, beta, Dirichlet, log-Dirichlet, von
    Mises, Wishart and inverse Wishart (or their Cholesky factors), Weibull to gamma; independent
    axes, expanded and masked ones of any of these; two guides of one kind that has `kl_to(p)`,
    such as `vi_jax.chains.GaussianChain`; and what else numpyro's registry has.

    Args:
      q, p: numpyro distributions over the same space, with event shapes alike and batch shapes that
        broadcast; or two guides of `vi_jax.families` over one pytree.

    Returns:
      Nats, of the broadcast batch shape.

    Raises:
      TypeError: q or p is no distribution.
      ValueError: the event shapes differ, or the batch shapes do not broadcast.
      NotImplementedError: no closed form is known; names `vi_jax.kl_monte_carlo`.
    """
    if isinstance(q, Program) or isinstance(p, Program):
        raise NotImplementedError(
            "the KL of a Program is taken site by site, given the sites before it: "
            "vi_jax.models.from_densities(..., kl='closed'), or estimate the whole by "
            "vi_jax.kl_monte_carlo(key, q, p, num_samples=...)."
        )
    require_pair("kl_divergence", q, p)
    layout = getattr(q, "layout", None)  # of a guide over a pytree, whose base is over a vector
    if layout is not None and layout == getattr(p, "layout", None):
        return kl_divergence(q.base, p.base)
    if hasattr(q, "kl_to") and type(q) is type(p):
        return q.kl_to(p)
    rule = _find_rule(q, p)
    if rule is not None:
        return rule(strip(q), strip(p))
    try:
        return numpyro_kl_divergence(q, p)
    except NotImplementedError:
        raise NotImplementedError(_refusal(q, p)) from None


def kl_per_dimension(q: Any, p: Any) -> Array:
    """The terms of KL(q || p) = sum_j KL(q_j || p_j) where both q and p factorise over one event
    axis: nats, [..., D].

    Raises:
      ValueError: q or p is not an `Independent` of one event axis, so that its KL has no terms per
        dimension.
    """
    q = strip(q)
    p = strip(p)
    if not all(
        isinstance(d, dist.Independent) and d.reinterpreted_batch_ndims == 1 for d in (q, p)
    ):
        raise ValueError(
            f"the KL splits by dimension only where q and p factorise; got {describe(q)} and "
            f"{describe(p)}. "
            "Take kl_divergence(q, p) for the whole."
        )
    require_pair("kl_per_dimension", q, p)
    return kl_divergence(q.base_dist, p.base_dist)


def describe(d: Any) -> str:
    """The kind of a distribution, in words for an error: `Independent of Normal`."""
    wrapped = isinstance(d, dist.Independent | ExpandedDistribution | MaskedDistribution)
    return f"{type(d).__name__} of {describe(d.base_dist)}" if wrapped else type(d).__name__


def _refusal(q: Any, p: Any) -> str:
    hints = (
        "estimate it: vi_jax.kl_monte_carlo(key, q, p, num_samples=...) returns a value and "
        "its standard error"
    )
    if hasattr(q, "mixing_distribution") or hasattr(p, "mixing_distribution"):
        hints += "; or bound it: vi_jax.kl.kl_mixture_upper_bound(q, p)"
    return f"no closed form is known for KL({describe(q)} || {describe(p)}); {hints}."


def strip(d: Any) -> Any:
    """The distribution without `expand` around it, where its batch shape is spelled out by
    broadcasting instead.
    """
    if isinstance(d, ExpandedDistribution):
        return _broadcast_leaves(strip(d.base_dist), d.batch_shape)
    if isinstance(d, dist.Independent) and d.reinterpreted_batch_ndims == 0:
        return strip(d.base_dist)
    if isinstance(d, dist.Independent) and isinstance(d.base_dist, dist.Independent):
        inner = d.base_dist
        return strip(
            dist.Independent(
                inner.base_dist, inner.reinterpreted_batch_ndims + d.reinterpreted_batch_ndims
            )
        )
    if isinstance(d, dist.Independent) and isinstance(d.base_dist, ExpandedDistribution):
        return dist.Independent(strip(d.base_dist), d.reinterpreted_batch_ndims)
    return d


def _broadcast_leaves(d: Any, batch_shape: tuple[int, ...]) -> Any:
    if batch_shape == d.batch_shape:
        return d
    if type(d) in (dist.Normal, dist.Laplace, dist.LogNormal):
        return type(d)(jnp.broadcast_to(d.loc, batch_shape), jnp.broadcast_to(d.scale, batch_shape))
    return ExpandedDistribution(d, batch_shape)


def _find_rule(q: Any, p: Any) -> Callable[[Any, Any], Array] | None:
    """The rule for the pair once stripped, or None where numpyro's registry decides."""
    if isinstance(q, dist.Delta):
        return None  # numpyro's own: -log p at the atom
    q = strip(q)
    p = strip(p)
    if _are(MaskedDistribution, q, p):
        return _masked
    if _are(dist.Independent, q, p):
        return _independent
    of_gaussians = rule_of_vectors(q, p)
    if of_gaussians is not None:
        return of_gaussians
    if isinstance(q, ExpandedDistribution) or isinstance(p, ExpandedDistribution):
        return _expanded
    if isinstance(q, dist.Kumaraswamy) and isinstance(p, dist.Beta):
        return _kumaraswamy_to_beta
    return next(
        (
            rule
            for kinds_q, kinds_p, rule in RULES
            if isinstance(q, kinds_q) and isinstance(p, kinds_p)
        ),
        None,
    )


def _are(kind: Any, q: Any, p: Any) -> bool:
    return isinstance(q, kind) and isinstance(p, kind)


def _expanded(q: Any, p: Any) -> Array:
    bare = [d.base_dist if isinstance(d, ExpandedDistribution) else d for d in (q, p)]
    return jnp.broadcast_to(
        kl_divergence(*bare), jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    )


def _masked(q: MaskedDistribution, p: MaskedDistribution) -> Array:
    """0 where either is masked, as its log density is."""
    kl = kl_divergence(q.base_dist, p.base_dist)
    return jnp.where(jnp.logical_and(q._mask, p._mask), kl, 0.0)


def _independent(q: dist.Independent, p: dist.Independent) -> Array:
    """KL adds over independent coordinates: peel the event axes that both reinterpret, then sum
    over them.
    """
    shared = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
    inner = [
        d.base_dist
        if d.reinterpreted_batch_ndims == shared
        else d.base_dist.to_event(d.reinterpreted_batch_ndims - shared)
        for d in (q, p)
    ]
    kl = kl_divergence(*inner)
    shape = jnp.broadcast_shapes(inner[0].batch_shape, inner[1].batch_shape)
    return jnp.broadcast_to(kl, shape).sum(tuple(range(-shared, 0)))


def _kumaraswamy_to_beta(q: Any, p: Any) -> Array:
    """Numpyro cuts a series after ten terms, 11 % off at ordinary values; closed at concentration0
    = 1 alone.
    """
    c = p.concentration0
    if isinstance(c, jax.core.Tracer) or not (np.asarray(c) == 1.0).all():
        raise NotImplementedError(
            f"{_refusal(q, p)} It is closed only at a beta whose concentration0 is the constant 1."
        )
    return scalars.kumaraswamy_to_power(q, p)
