"""Models of trials whose latents are a Gaussian chain, seen through linear predictors: their
guide is the fixed point of conjugate-computation variational inference.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import chains
from vi_jax.attributes import declare
from vi_jax.chains import Chain, Emission, EmissionStats, Found, GaussianChain, Smoothed
from vi_jax.chains.expectations import Expected, ExpectedLogLik
from vi_jax.models import likelihoods
from vi_jax.models._columns import Column, require_columns
from vi_jax.models._trials import Trial, TrialDistribution, filled
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Densities, Model, Params, Terms, freeze

OF_KIND: dict[str, Callable[[], Likelihood]] = {
    "poisson": likelihoods.poisson,
    "negative_binomial": likelihoods.negative_binomial,
    "bernoulli": likelihoods.bernoulli,
    "gaussian": partial(likelihoods.gaussian_per_dimension, 1.0),
    "student_t": partial(likelihoods.student_t, 1.0),
}


class Parts(NamedTuple):
    """What such a model is made of; no parameters."""

    name: str
    num_units: int  # N
    likelihood: Likelihood
    chain: Callable[[Params], Chain]
    emission: Callable[[Params], Emission]
    init: Callable[[Array], Params]  # without the likelihood's own
    num_passes: int
    chunk: int  # of the associative scan, 0 for a serial one
    max_steps: int | None
    # (params, mean statistics of the chain) -> params with the dynamics at their optimum; None:
    # the dynamics are left to the gradient
    learn_chain: Callable[[Params, Any], Params] | None
    forget: float | None  # weight of a batch in the running statistics; None: by the gradient
    seen: tuple[int, ...] = ()  # the numbers of a step that "loadings" are of; (): all


class Stats(NamedTuple):
    """What closed-form learning is given of one trial, or of the mean trial."""

    chain: Any  # of the dynamics: ChainStats, or RegimeStats
    emission: EmissionStats
    residual: Array  # sum over steps of E[(x - eta)^2] where observed, [N]
    num_observed: Array  # steps at which each unit is observed, [N]


def make_model(parts: Parts) -> Model:
    """The Model of its parts, whose parameters have "likelihood" beside those of `init`."""

    def init(key: Array) -> Params:
        own = parts.likelihood.init((parts.num_units,))
        params = {**parts.init(key), "likelihood": own}
        terms = partial(_terms, parts)
        return params if parts.forget is None else {**params, **no_running(parts, params, terms)}

    def guide(params: Params, x: Trial) -> GaussianChain:
        found = posterior(parts, params, x)
        chain = freeze(parts.chain(params))
        return GaussianChain(chain, x["values"].shape[0], found.posterior, found.gain)

    def prior(params: Params, x: Trial | None) -> GaussianChain:
        return chains.gaussian_chain(parts.chain(params), num_steps=steps_of(parts, x))

    decode = partial(decode_path, parts)

    def log_lik(params: Params, x: Trial, z: Array) -> Array:
        return decode(params, x, z).log_prob(x)

    def generate(key: Array, params: Params, x: Trial) -> TrialDistribution:
        return decode(params, x, prior(params, x).sample(key))

    def predict(params: Params, x: Trial) -> Array:
        return predict_from(parts, params, guide(params, x).moments)

    def log_weight(params: Params, x: Trial, q: GaussianChain, z: Array) -> Array:
        # q = p(z) prod_t site_t(z_t) / Z: the prior cancels
        return log_lik(params, x, z) - q.log_sites(z) + q.log_z

    densities = Densities(guide, prior, decode, log_lik, predict=predict, log_weight=log_weight)
    update = None
    if parts.forget is not None:
        update = declare(m_step=True)(partial(update_by_stats, parts))
    return Model(init, partial(_terms, parts), generate, densities, None, update)


def decode_path(parts: Parts, params: Params, x: Trial | None, z: Array) -> TrialDistribution:
    """p(x | z) of a path [T, D]."""
    del x
    emission = parts.emission(params)
    eta = z @ emission.loadings.T + emission.offset
    return TrialDistribution(parts.likelihood.make(params["likelihood"], eta[..., None]))


def predict_from(parts: Parts, params: Params, moments: Smoothed) -> Array:
    """E[x] under moments of the path, [T, N]."""
    mean, variance = chains.predictors(parts.emission(params), moments)
    own = params["likelihood"]
    mean_of = chains.expected_by_quadrature(
        lambda eta: parts.likelihood.make(own, eta[..., None]).mean
    )
    return mean_of(mean, variance)


def derivatives(parts: Parts, params: Params, x: Trial) -> Callable[[Array, Array], Expected]:
    """Mean and variance of the predictors -> E[log p(x)] and its derivatives."""
    if parts.likelihood.expected is None:
        own = params["likelihood"]
        return chains.by_quadrature(partial(_log_lik, parts.likelihood, own, filled(x)))
    return chains.by_closed_form(expected_log_lik(parts, params, x))


def posterior(parts: Parts, params: Params, x: Trial) -> Found:
    """The fixed point for one trial; no gradient passes through it."""
    require_trial(parts, x)
    params = freeze(params)
    smooth = chains.smooth
    if parts.chunk:
        smooth = partial(chains.smooth_in_chunks, chunk=parts.chunk)
    return chains.fit_sites(
        parts.chain(params),
        parts.emission(params),
        derivatives(parts, params, x),
        x["observed"],
        num_passes=parts.num_passes,
        smooth=smooth,
    )


def _terms(parts: Parts, key: Array | None, params: Params, x: Trial) -> Terms:
    """E_q[log p(x | z)] and KL(q || p), both without a draw. Their values are those of the fixed
    point q; their gradient is that of the ELBO at fixed sites, which at the fixed point is all of
    it (the envelope theorem), by log Z and so without an inverse of the chain's noise.
    """
    del key
    found = posterior(parts, params, x)
    (sites, smoothed, _) = found.posterior
    mean, variance = chains.predictors(parts.emission(params), smoothed)
    expected = expected_log_lik(parts, params, x)(mean, variance)
    log_lik = jnp.where(x["observed"], expected, 0.0).sum()
    log_z = chains.log_normalizer(parts.chain(params), sites)
    kl = {"z": chains.expected_log_sites(sites, smoothed) - log_z}
    stats: Any = ()
    if parts.forget is not None:
        stats = stats_of(parts, params, x, smoothed, chains.chain_stats(smoothed))
    return Terms(log_lik, kl, stats=stats)


def expected_log_lik(parts: Parts, params: Params, x: Trial) -> ExpectedLogLik:
    """Mean and variance of the predictors -> E[log p(x)], elementwise."""
    own = params["likelihood"]
    values = filled(x)
    if parts.likelihood.expected is not None:
        return partial(parts.likelihood.expected, own, values)
    return chains.expected_by_quadrature(partial(_log_lik, parts.likelihood, own, values))


# --- closed-form learning


def stats_of(parts: Parts, params: Params, x: Trial, smoothed: Smoothed, of_chain: Any) -> Stats:
    """The statistics of one trial; `of_chain` are those of its dynamics."""
    params = freeze(params)
    emission = Emission(params["loadings"], params["offset"])
    of = _seen(parts, smoothed)
    mean, variance = chains.predictors(emission, of)
    square = (filled(x) - mean) ** 2 + variance
    observed = x["observed"]
    return Stats(
        of_chain,
        chains.emission_stats(emission, expected_log_lik(parts, params, x), observed, of),
        jnp.where(observed, square, 0.0).sum(0),
        observed.sum(0).astype(mean.dtype),
    )


def _seen(parts: Parts, of: Smoothed) -> Smoothed:
    """The moments of the numbers that loadings are of."""
    if not parts.seen:
        return of
    seen = np.array(parts.seen)
    cov = of.cov[:, seen[:, None], seen]
    return of._replace(mean=of.mean[:, seen], cov=cov, cross=of.cross[:, seen[:, None], seen])


def no_running(parts: Parts, params: Params, terms: Callable[..., Terms]) -> Params:
    """Running statistics before the first batch, and their weight."""
    row = (2, parts.num_units)
    x = {"values": jnp.zeros(row), "observed": jnp.ones(row, bool)}
    shapes = jax.eval_shape(lambda params: terms(None, params, x).stats, params)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return {"running": {"stats": zeros, "weight": jnp.zeros(())}}


def update_by_stats(parts: Parts, key: Array, params: Params, stats: Stats) -> Params:
    """The parameters at the optimum of running means of the statistics (Cappe & Moulines 2009, eq.
    13, with a fixed weight, and unbiased at the start).
    """
    del key
    assert parts.forget is not None
    kept = 1.0 - parts.forget
    old = params["running"]
    weight = kept * old["weight"] + parts.forget
    sums = jax.tree.map(lambda a, b: kept * a + parts.forget * b, old["stats"], stats)
    mean = jax.tree.map(lambda leaf: leaf / weight, sums)
    present = Emission(params["loadings"], params["offset"])
    emission = chains.emission_of(mean.emission, present)
    params = {
        **params,
        "loadings": emission.loadings,
        "offset": emission.offset,
        "running": {"stats": sums, "weight": weight},
    }
    if parts.learn_chain is not None:
        params = parts.learn_chain(params, mean.chain)
    if parts.likelihood.at_residual is not None:
        square = mean.residual / jnp.maximum(mean.num_observed, 1e-6)
        own = parts.likelihood.at_residual(params["likelihood"], square)
        params = {**params, "likelihood": own}
    return params


# --- what fits


def _log_lik(likelihood: Likelihood, own: Params, values: Array, eta: Array) -> Array:
    """log p(x | eta), elementwise."""
    return likelihood.make(own, eta[..., None]).log_prob(values)


def likelihood_of(columns: Sequence[Column], name: str) -> Likelihood:
    """The likelihood of columns that are all of one kind.

    Raises:
      ValueError: they are of several kinds, or of one that has no linear predictor.
    """
    kinds = sorted({column.kind for column in require_columns(columns)})
    if len(kinds) != 1 or kinds[0] not in OF_KIND:
        raise ValueError(
            f"{name} expects columns of one kind, one of {', '.join(OF_KIND)}; got "
            f"{', '.join(kinds)}. Set config.data.kinds, or give a likelihood."
        )
    return OF_KIND[kinds[0]]()


def require_sizes(
    name: str, num_latents: int, num_passes: int, chunk: int, forget: float | None
) -> None:
    """Raises ValueError for numbers that cannot be."""
    if min(num_latents, num_passes) < 1 or chunk < 0:
        raise ValueError(
            f"{name} expects num_latents and num_passes of at least 1 and chunk of at least 0; got "
            f"{num_latents}, {num_passes} and {chunk}."
        )
    if forget is not None and not 0.0 < forget <= 1.0:
        raise ValueError(f"{name} expects forget above 0 and at most 1, or None; got {forget}.")


def require_one_output(likelihood: Likelihood, name: str) -> Likelihood:
    """Raises ValueError for a likelihood of several outputs an observation."""
    if likelihood.num_outputs != 1:
        raise ValueError(
            f"{name} has one linear predictor for each observation, and this likelihood expects "
            f"{likelihood.num_outputs}; take one of one output, such as poisson."
        )
    return likelihood


def steps_of(parts: Parts, x: Trial | None) -> int:
    if x is not None:
        return x["values"].shape[0]
    if parts.max_steps is None:
        raise ValueError(f"this {parts.name} needs a trial, or max_steps, to know how many steps.")
    return parts.max_steps


def require_trial(parts: Parts, x: Trial) -> None:
    """Raises ValueError where x is not one trial, of any number of steps."""
    shapes = {name: jnp.shape(x[name]) for name in ("values", "observed") if name in x}
    wanted = (*shapes.get("values", (0,))[:1], parts.num_units)
    if shapes != {"values": wanted, "observed": wanted}:
        raise ValueError(
            f"{parts.name} expects one trial, values and observed [T, {parts.num_units}]; got "
            f"{shapes}. vmap over a batch."
        )
