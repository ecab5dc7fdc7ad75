"""Bounds of the KL between mixtures, which has no closed form, and an approximation between them.

For q = sum_a w_a f_a and p = sum_b v_b g_b all are functions of the KLs between components (Hershey
& Olsen 2007, Durrieu et al. 2012). Either may be a lone distribution, which is a mixture of one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.distribution import ExpandedDistribution

from vi_jax.arguments import as_count, require_pair
from vi_jax.kl.closed import describe, kl_divergence
from vi_jax.kl.gaussians import is_gaussian_vector, square_root

Array = jax.Array


def kl_mixture_upper_bound(q: Any, p: Any, *, num_steps: int = 30) -> Array:
    """The variational upper bound of Hershey & Olsen (2007), section 8: at least KL(q || p) after
    any number of steps.

        KL(q || p) <= sum_ab phi_ab (log phi_ab / psi_ab + KL(f_a || g_b))

    with sum_b phi_ab = w_a and sum_a psi_ab = v_b, by the log-sum inequality; phi and psi are
    minimised over in turn, from phi = psi = w v, where it is the convexity bound sum_ab w_a v_b
    KL(f_a || g_b). Where q and p are the same mixture it reaches 0.

    Args:
      q, p: mixtures (numpyro's MixtureSameFamily or MixtureGeneral) or lone distributions, whose
        components have a closed KL.
      num_steps: of the alternation, static, 0 or more; each lowers the bound.

    Returns:
      Nats, of the broadcast batch shape.
    """
    num_steps = as_count(num_steps, "num_steps", least=0)
    require_pair("kl_mixture_upper_bound", q, p)
    kl = _pairwise_kl(q, p)
    log_w = _log_weights(q)[..., :, None]
    log_v = _log_weights(p)[..., None, :]

    def step(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        log_phi, log_psi = carry
        log_psi = log_v + jax.nn.log_softmax(log_phi, axis=-2)
        return log_w + jax.nn.log_softmax(log_psi - kl, axis=-1), log_psi

    start = jnp.broadcast_to(log_w + log_v, kl.shape).astype(kl.dtype)
    log_phi, log_psi = jax.lax.fori_loop(0, num_steps, step, (start, start))
    return (jnp.exp(log_phi) * (log_phi - log_psi + kl)).sum((-2, -1))


def kl_mixture_lower_bound(q: Any, p: Any) -> Array:
    """A lower bound of KL(q || p) between mixtures of Gaussians (Durrieu et al. 2012, section 3);
    may be negative where loose.

        sum_a w_a (log sum_c w_c e^(-KL(f_a || f_c)) - H[f_a] - log sum_b v_b integral f_a g_b)
            <= KL(q || p),

    by the variational lower bound of E_a[log q] and by Jensen's inequality for E_a[log p]; tight
    where components are far apart in q and flat in p.

    Args:
      q, p: mixtures of normals, scalar or over a vector in any form of `kl_divergence`.

    Returns:
      Nats, of the broadcast batch shape.
    """
    require_pair("kl_mixture_lower_bound", q, p)
    near = _log_sum(_log_weights(q), -_pairwise_kl(q, q))
    overlap = _log_sum(_log_weights(p), _by_pairs(_log_overlap, q, p))
    return (jnp.exp(_log_weights(q)) * (near - _entropies(q) - overlap)).sum(-1)


def kl_mixture_variational(q: Any, p: Any) -> Array:
    """The variational approximation of Hershey & Olsen (2007), eq. 20: near the KL, but neither of
    its bounds.

        sum_a w_a log[sum_c w_c e^(-KL(f_a || f_c)) / sum_b v_b e^(-KL(f_a || g_b))]

    A difference of two lower bounds, of E_q[log q] and of E_q[log p]; 0 where q and p are the same
    mixture. Arguments and result as `kl_mixture_upper_bound`.
    """
    require_pair("kl_mixture_variational", q, p)
    near = _log_sum(_log_weights(q), -_pairwise_kl(q, q))
    far = _log_sum(_log_weights(p), -_pairwise_kl(q, p))
    return (jnp.exp(_log_weights(q)) * (near - far)).sum(-1)


def _log_sum(log_weights: Array, log_terms: Array) -> Array:
    """log sum_b v_b e^(t_ab), [..., A]."""
    return jax.nn.logsumexp(log_weights[..., None, :] + log_terms, axis=-1)


def _log_weights(d: Any) -> Array:
    """log w, [..., A]; 0 for a lone distribution."""
    if not hasattr(d, "mixing_distribution"):
        return jnp.zeros((*d.batch_shape, 1))
    return jax.nn.log_softmax(d.mixing_distribution.logits, axis=-1)


def _pairwise_kl(q: Any, p: Any) -> Array:
    """KL(f_a || g_b), [..., A, B]."""
    return _by_pairs(kl_divergence, q, p)


def _by_pairs(measure: Any, q: Any, p: Any) -> Array:
    """measure(f_a, g_b), [..., A, B]: all pairs at once where the components are one batch, one by
    one where they are a list.
    """
    if isinstance(q, dist.MixtureGeneral) or isinstance(p, dist.MixtureGeneral):
        rows = [
            jnp.stack(jnp.broadcast_arrays(*[measure(f, g) for g in _components(p)]), -1)
            for f in _components(q)
        ]
        return jnp.stack(jnp.broadcast_arrays(*rows), -2)
    return measure(_component_batch(q, -1), _component_batch(p, -2))


def _components(d: Any) -> list[Any]:
    """The components of a mixture that is a list, or a lone distribution as a list of one."""
    if isinstance(d, dist.MixtureGeneral):
        return list(d.component_distributions)
    if hasattr(d, "component_distribution"):
        raise NotImplementedError(
            "a MixtureGeneral and a MixtureSameFamily cannot be paired: make both of one kind."
        )
    return [d]


def _component_batch(d: Any, axis: int) -> Any:
    """The components with a batch axis of length 1 beside theirs: after it for the rows (-1),
    before it for the columns (-2).
    """
    if hasattr(d, "component_distribution"):
        return _insert_axis(d.component_distribution, axis)
    return _insert_axis(_insert_axis(d, -1), axis)


def _insert_axis(d: Any, axis: int) -> Any:
    """The distribution with one more batch axis, of length 1, at `axis` of its new batch shape:
    made anew from its parameters.
    """
    if isinstance(d, dist.Independent):
        return _insert_axis(d.base_dist, axis - d.reinterpreted_batch_ndims).to_event(
            d.reinterpreted_batch_ndims
        )
    if isinstance(d, ExpandedDistribution):
        inner = d.base_dist
        missing = len(d.batch_shape) - len(inner.batch_shape)
        for _ in range(missing):
            inner = _insert_axis(inner, -len(inner.batch_shape) - 1)
        shape = list(d.batch_shape)
        shape.insert(len(shape) + 1 + axis, 1)
        return _insert_axis(inner, axis).expand(tuple(shape))
    kind = type(d)
    parameters = d.get_args()
    if kind is dist.MultivariateNormal:
        parameters = {"loc": d.loc, "scale_tril": d.scale_tril}
    widened = {}
    for name, x in parameters.items():
        event_ndims = d.arg_constraints[name].event_dim
        event = jnp.shape(x)[jnp.ndim(x) - event_ndims :]
        widened[name] = jnp.expand_dims(
            jnp.broadcast_to(x, (*d.batch_shape, *event)), axis - event_ndims
        )
    return kind(**widened)


def _entropies(d: Any) -> Array:
    """H[f_a], [..., A]."""
    if isinstance(d, dist.MixtureGeneral):
        return jnp.stack(
            jnp.broadcast_arrays(*[f.entropy() for f in d.component_distributions]), -1
        )
    return (
        d.component_distribution.entropy()
        if hasattr(d, "component_distribution")
        else d.entropy()[..., None]
    )


def _log_overlap(f: Any, g: Any) -> Array:
    """log of the integral of f g, for Gaussians: log N(mf; mg, Sf + Sg)."""
    if isinstance(f, dist.Normal) and isinstance(g, dist.Normal):
        return dist.Normal(g.loc, jnp.hypot(f.scale, g.scale)).log_prob(f.loc)
    if is_gaussian_vector(f) and is_gaussian_vector(g):
        roots = [square_root(d) for d in (f, g)]
        covariance = sum(root @ jnp.swapaxes(root, -1, -2) for root in roots)
        return dist.MultivariateNormal(g.mean, covariance_matrix=covariance).log_prob(f.mean)
    raise NotImplementedError(
        f"kl_mixture_lower_bound expects components that are Gaussian; got {describe(f)} and "
        f"{describe(g)}. "
        "vi_jax.kl_monte_carlo(key, q, p, num_samples=...) estimates their KL."
    )
