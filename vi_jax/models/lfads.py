"""LFADS: latent dynamics of spike counts by a recurrent generator that starts at z."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.attributes import declare
from vi_jax.models import _driven, _linear_chain, _recurrent
from vi_jax.models._columns import Column
from vi_jax.models._driven_guides import DrivenGuide, DrivenPrior
from vi_jax.models._trials import Trial, TrialDistribution, filled
from vi_jax.models.from_densities import from_densities
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.sequence_vae import length_of
from vi_jax.types import Array, Model, Params, Terms

NAME = "lfads"
PRIOR_VARIANCE = 0.1
MIN_VARIANCE = 1e-4  # of the guide


class Generator(nn.Module):
    """Gated recurrent units that start at a function of z and run by themselves; factors are
    projections of their states on unit vectors, predictors are linear in the factors.
    """

    width: int
    num_factors: int
    num_units: int
    start: tuple[float, ...]  # of the predictors

    @nn.compact
    def __call__(self, z: Array, num_steps: int) -> tuple[Array, Array]:
        """Predictors [T, N] and factors [T, F] of z [D]."""
        carry = nn.Dense(self.width, name="start")(z)
        cell = nn.RNN(nn.GRUCell(self.width), name="steps")
        # a constant, since nothing comes in: no step is told where it is
        states: Any = cell(jnp.ones((num_steps, 1), z.dtype), initial_carry=carry)
        directions: Array = self.param(
            "factors", nn.initializers.lecun_normal(), (self.width, self.num_factors)
        )
        factors = states @ (directions / jnp.linalg.norm(directions, axis=0))
        bias = jnp.asarray(self.start, z.dtype)
        rates = nn.Dense(self.num_units, bias_init=lambda *_: bias, name="predictors")
        return rates(factors), factors


class _Parts(NamedTuple):
    """What the model is made of; no parameters."""

    encoder: _recurrent.Encoder
    generator: Generator | _driven.Generator
    controller: _driven.Controller | None  # of inferred inputs
    likelihood: Likelihood
    num_latents: int
    max_steps: int | None
    hide: float | Array


def lfads(
    columns: Sequence[Column],
    *,
    num_latents: int = 32,
    width: int = 64,
    generator_width: int = 64,
    num_factors: int = 8,
    num_inputs: int = 0,
    controller_width: int = 32,
    likelihood: Likelihood | None = None,
    hide: float | Array = 0.3,
    max_steps: int | None = None,
) -> Model:
    """p(z) prod_tn p(x_tn | c_n' f_t(z) + d_n): factors f of a recurrent network that starts at z,
    and q(z | x) by a recurrent network both ways (Pandarinath et al. 2018). Sums over bins, and the
    KL as it is: the terms are those of the ELBO.

    With `num_inputs` the generator is given inputs u_t as well, which a controller infers: a
    recurrent network that sees an encoder's output of each step and the factors of the step before.
    Their prior is a stationary autoregression of order 1 for each, with a learned time constant and
    variance; q(u_t | z, u_1 .. u_(t-1), x) is normal, its mean and log variance shifts from those
    of p(u_t | u_(t-1)), where the paper's are put out as they are. The KL given what was drawn
    before is in closed form, and at steps after the trial's end 0.

    An example is one trial, as of `poisson_lds`. Training is by coordinated dropout (Keshtkaran &
    Pandarinath 2019): the encoder is shown each bin with probability 1 - hide, and only those that
    it was not shown are scored, each 1 / hide times, so that copying its input gains nothing. The
    terms of evaluation hide nothing.

    Args:
      columns: the observations of a step, of one kind.
      num_latents: of z, the generator's start.
      width: of the encoder's recurrent units, each way.
      generator_width: of the generator's.
      num_factors: F.
      num_inputs: U of the inferred inputs; 0 for a generator that runs by itself.
      controller_width: of the controller's recurrent units, and of the encoder's for it, each way.
      likelihood: of one output; that of the columns' kind if not given.
      hide: share of bins that the encoder is not shown; 0 trains on the terms themselves. A traced
        number, such as one of several runs in one program, is above 0.
      max_steps: T of what is generated where no example is given, which has one.

    Returns:
      A Model over z [D] of parameters {"encoder", "generator", "prior_mean", "likelihood"}; with
      inputs over {"z": [D], "inputs": [T, U]}, with "step_encoder", "controller" and "inputs" too.

    Raises:
      ValueError: a size is not positive (num_inputs may be 0), hide is not in [0, 1), or the
        columns do not fit.
    """
    is_traced = isinstance(hide, jax.core.Tracer)
    has_share = is_traced or 0.0 <= hide < 1.0
    sizes = (num_latents, width, generator_width, num_factors, controller_width)
    if min(sizes) < 1 or num_inputs < 0 or not has_share:
        raise ValueError(
            f"{NAME} expects sizes of at least 1, num_inputs of at least 0 and hide in [0, 1); got "
            f"{', '.join(map(str, sizes))}, {num_inputs} and {hide}."
        )
    chosen = likelihood or _linear_chain.likelihood_of(columns, NAME)
    start = tuple(_first(column.start) for column in columns)
    make_generator = _driven.Generator if num_inputs else Generator
    controller = None
    if num_inputs:
        controller = _driven.Controller(controller_width, num_inputs)
    parts = _Parts(
        _recurrent.Encoder(width, 2 * num_latents),
        make_generator(generator_width, num_factors, len(columns), start),
        controller,
        _linear_chain.require_one_output(chosen, NAME),
        num_latents,
        max_steps,
        hide,
    )
    model = from_densities(
        partial(_init, parts),
        lambda params, x: _guide(parts, params, x, x["observed"], 1.0),
        partial(_prior, parts),
        partial(_decode, parts),
        lambda params, x, z: _decode(parts, params, x, z).log_prob(x),
    )
    if num_inputs:
        model = model._replace(terms=declare(through_draws=True)(partial(_driven_terms, parts)))
    if is_traced or hide > 0.0:
        return model._replace(train_terms=partial(_hidden_terms, parts))
    return model


def _first(start: tuple[float, ...] | float) -> float:
    if isinstance(start, tuple):
        return float(start[0]) if start else 0.0
    return float(start)


def _init(parts: _Parts, key: Array) -> Params:
    key_encoder, key_generator = jax.random.split(key)
    num_units = parts.generator.num_units
    features = jnp.zeros((2, 2 * num_units))
    z = jnp.zeros(parts.num_latents)
    params = {
        "encoder": jax.jit(parts.encoder.init)(key_encoder, features, jnp.int32(1))["params"],
        "prior_mean": jnp.zeros(parts.num_latents),
        "likelihood": parts.likelihood.init((num_units,)),
    }
    if parts.controller is None:
        generator = jax.jit(parts.generator.init, static_argnums=2)
        return {**params, "generator": generator(key_generator, z, 2)["params"]}
    (key_steps, key_driven) = jax.random.split(key_generator)
    steps = _step_encoder(parts.controller)
    init = jax.jit(partial(_driven.init, _networks(parts)), static_argnums=(1, 2))
    return {
        **params,
        "step_encoder": jax.jit(steps.init)(key_steps, features, jnp.int32(1))["params"],
        **init(key_driven, parts.num_latents, 2 * steps.width),
    }


def _networks(parts: _Parts) -> _driven.Networks:
    assert isinstance(parts.generator, _driven.Generator)
    assert parts.controller is not None
    return _driven.Networks(parts.generator, parts.controller)


def _step_encoder(controller: _driven.Controller) -> _driven.StepEncoder:
    return _driven.StepEncoder(controller.width)


def _guide(parts: _Parts, params: Params, x: Trial, seen: Array, scale: float | Array) -> Any:
    """q(z | the bins that are seen), their values times a scale."""
    shown = jnp.where(seen, filled(x) * scale, 0.0)
    features = jnp.concatenate([shown, seen.astype(shown.dtype)], axis=1)
    own = {"params": params["encoder"]}
    length = length_of(x["observed"])
    outputs: Any = parts.encoder.apply(own, features, length)
    mean, log_variance = jnp.split(outputs, 2)
    sd = jnp.sqrt(PRIOR_VARIANCE * jnp.exp(log_variance) + MIN_VARIANCE)
    start = dist.Normal(params["prior_mean"] + mean, sd).to_event(1)
    if parts.controller is None:
        return start
    of_steps = {"params": params["step_encoder"]}
    encoded: Any = _step_encoder(parts.controller).apply(of_steps, features, length)
    driving = {name: params[name] for name in ("generator", "controller", "inputs")}
    is_there = jnp.arange(len(features)) < length
    return DrivenGuide(start, driving, encoded, is_there, _networks(parts))


def _prior(parts: _Parts, params: Params, x: Trial | None) -> Any:
    mean = params["prior_mean"]
    sd = jnp.full(parts.num_latents, PRIOR_VARIANCE**0.5, mean.dtype)
    start = dist.Normal(mean, sd).to_event(1)
    if parts.controller is None:
        return start
    return DrivenPrior(start, params["inputs"], _num_steps(parts, x))


def _decode(parts: _Parts, params: Params, x: Trial | None, z: Any) -> TrialDistribution:
    if parts.controller is None:
        own = {"params": params["generator"]}
        outputs: Any = parts.generator.apply(own, z, _num_steps(parts, x))
    else:
        outputs = _driven.decode(_networks(parts), params, z["z"], z["inputs"])
    predictors, factors = outputs
    base = parts.likelihood.make(params["likelihood"], predictors[..., None])
    return TrialDistribution(base, factors)


def _num_steps(parts: _Parts, x: Trial | None) -> int:
    if x is not None:
        return x["values"].shape[0]
    if parts.max_steps is None:
        raise ValueError(f"this {NAME} needs a trial, or max_steps, to know how many steps.")
    return parts.max_steps


def _draw(parts: _Parts, key: Array, params: Params, x: Trial, q: Any) -> tuple[Any, Any]:
    """One z of the guide, and the KLs of its sites given it, nats."""
    p = _prior(parts, params, x)
    if parts.controller is None:
        return q.sample(key), {"z": dist.kl_divergence(q.base_dist, p.base_dist)}
    (z, of_inputs) = q.draw(key)
    of_start = dist.kl_divergence(q.start.base_dist, p.start.base_dist)
    return z, {"z": of_start, "inputs": of_inputs}


def _driven_terms(parts: _Parts, key: Array, params: Params, x: Trial) -> Terms:
    q = _guide(parts, params, x, x["observed"], 1.0)
    (z, kl) = _draw(parts, key, params, x, q)
    return Terms(_decode(parts, params, x, z).log_prob(x), kl)


def _hidden_terms(parts: _Parts, key: Array, params: Params, x: Trial) -> Terms:
    """The terms by coordinated dropout: an unbiased estimate of log p(x | z) over all bins, from
    those that the guide was not shown.
    """
    key_shown, key_z = jax.random.split(key)
    is_shown = jax.random.bernoulli(key_shown, 1.0 - parts.hide, x["observed"].shape)
    q = _guide(parts, params, x, x["observed"] & is_shown, 1.0 / (1.0 - parts.hide))
    (z, kl) = _draw(parts, key_z, params, x, q)
    log_probs = _decode(parts, params, x, z).log_probs(x)
    log_lik = jnp.where(is_shown, 0.0, log_probs / parts.hide).sum()
    return Terms(log_lik, kl)
