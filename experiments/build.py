"""The only place where a name in a config becomes a function."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi
from experiments.settings import CHOICES, parse_sigma
from vi_jax.models import likelihoods, networks
from vi_jax.training import State

ACTIVATIONS = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
}
PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}
FAMILIES = {name: getattr(vi.families, name) for name in CHOICES["family"]}
BOUNDS = {"elbo": vi.bounds.elbo, "iwae": vi.bounds.iwae}
GRAD_NORM_EVERY = 10  # steps; see `vi.make_step`
ESTIMATORS = {"reparam": vi.estimators.reparam}


def likelihood(config: Any, num_levels: int) -> likelihoods.Likelihood:
    """p(x | z), from config.model."""
    name = config.model.likelihood
    if name == "bernoulli":
        return likelihoods.bernoulli()
    if name == "discretized_logistic":
        return likelihoods.discretized_logistic(num_levels)
    if name == "categorical":
        return likelihoods.categorical(num_levels)
    sigma = parse_sigma(config)
    start = config.model.sigma_init
    if isinstance(sigma, float):
        return likelihoods.gaussian(sigma, link=jax.nn.sigmoid)
    factories = {
        "learned": likelihoods.gaussian_learned,
        "per_dimension": likelihoods.gaussian_per_dimension,
        "optimal": likelihoods.gaussian_optimal,
    }
    return factories[sigma](start, link=jax.nn.sigmoid)


def model(
    config: Any, x_shape: tuple[int, ...], num_levels: int, mean_image: np.ndarray | None = None
) -> vi.Model:
    """The VAE of a config for examples [*x_shape]; `mean_image` [*x_shape] in [0, 1] starts a
    Bernoulli decoder at its logit.
    """
    spec = config.model
    lik = likelihood(config, num_levels)
    hidden = tuple(spec.hidden)
    activation = ACTIVATIONS[spec.activation]
    dtype = PRECISIONS[config.precision]
    if spec.network == "conv":
        return vi.models.amortised(
            x_shape,
            lambda size: networks.conv_encoder(x_shape, size, hidden, activation, dtype=dtype),
            lambda size: networks.conv_decoder(
                x_shape, size, spec.num_latents, hidden[::-1], activation, dtype=dtype
            ),
            FAMILIES[config.family](spec.num_latents),
            lik,
            num_latents=spec.num_latents,
            input_scale=_input_scale(config, num_levels),
        )
    bias = None
    if spec.likelihood == "bernoulli" and mean_image is not None:
        mean = np.clip(mean_image, 1e-3, 1 - 1e-3)
        bias = np.log(mean / (1 - mean))[..., None]
    return vi.models.amortised(
        x_shape,
        lambda size: networks.mlp_encoder(x_shape, size, hidden, activation, dtype=dtype),
        lambda size: networks.mlp_decoder(
            x_shape, size, spec.num_latents, hidden[::-1], activation, output_bias=bias, dtype=dtype
        ),
        FAMILIES[config.family](spec.num_latents),
        lik,
        num_latents=spec.num_latents,
        input_scale=_input_scale(config, num_levels),
    )


def loss(config: Any, the_model: vi.Model) -> vi.losses.Loss:
    """What is minimised, from config.bound, estimator, num_samples and objective."""
    if config.bound == "analytic_elbo":
        return vi.losses.negative_elbo(
            the_model,
            num_samples=config.num_samples,
            beta=beta(config),
            free_bits=config.objective.free_bits,
        )
    return vi.losses.negative_bound(
        the_model,
        BOUNDS[config.bound],
        ESTIMATORS[config.estimator],
        num_samples=config.num_samples,
        name=metric_name(config),
    )


def step(
    config: Any,
    the_model: vi.Model,
    num_levels: int,
    *,
    rule: optax.GradientTransformation | None = None,
    grad_norm_every: int | None = None,
) -> Callable[[State, jax.Array], tuple[State, vi.training.Metrics]]:
    """The pure step of a config, from levels [B, *x_shape]; `rule` is its optimiser and the rest
    the config's, if not given.
    """
    spec = config.train
    max_skipped = spec.max_skipped if spec.on_nonfinite == "skip" else 0
    return vi.make_step(
        loss(config, the_model),
        rule or optimizer(config),
        ema_decay=config.optim.ema,
        prepare=prepare(config, num_levels),
        grad_norm_every=grad_norm_every
        or (1 if max_skipped else min(GRAD_NORM_EVERY, spec.log_every)),
        max_skipped=max_skipped,
    )


def metric_name(config: Any) -> str:
    """What the bound that is trained is called in the metrics."""
    return "elbo" if config.bound in ("elbo", "analytic_elbo") else config.bound


def beta(config: Any) -> float | vi.losses.Schedule:
    """The weight of the KL over the steps."""
    spec = config.objective
    if spec.warmup == "linear":
        return vi.losses.linear_warmup(spec.warmup_steps, final=spec.beta)
    if spec.warmup == "cyclical":
        return vi.losses.cyclical_warmup(spec.warmup_steps, ramp=spec.warmup_ramp, final=spec.beta)
    return spec.beta


def learning_rate(config: Any) -> optax.Schedule:
    """Steps -> learning rate: a linear warm-up, then the schedule down to 0 at the last step."""
    spec = config.optim
    warmup = config.optim.lr_warmup_steps
    rest = config.train.num_steps - warmup
    main = {
        "constant": lambda: optax.constant_schedule(spec.learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(spec.learning_rate, rest),
        "linear": lambda: optax.linear_schedule(spec.learning_rate, 0.0, rest),
    }[spec.schedule]()
    if not warmup:
        return main
    return optax.join_schedules(
        [optax.linear_schedule(0.0, spec.learning_rate, warmup), main], [warmup]
    )


def optimizer(config: Any) -> optax.GradientTransformation:
    """The optax chain of config.optim."""
    spec = config.optim
    rate = learning_rate(config)
    update = {
        "adam": lambda: optax.adam(rate),
        "adamw": lambda: optax.adamw(rate, weight_decay=spec.weight_decay),
        "adagrad": lambda: optax.adagrad(rate),
        "rmsprop": lambda: optax.rmsprop(rate),
        "sgd": lambda: optax.sgd(rate, momentum=0.9),
    }[spec.name]()
    return (
        optax.chain(optax.clip_by_global_norm(spec.clip_norm), update) if spec.clip_norm else update
    )


def prepare(config: Any, num_levels: int) -> vi.training.Prepare:
    """(key, levels [B, *x_shape]) -> x as the likelihood wants it: binarised afresh, grey in [0,
    1], or levels.
    """
    if config.data.binarisation == "dynamic" and num_levels > 2:
        return lambda key, levels: binarise(key, levels, num_levels)
    if config.model.likelihood in ("discretized_logistic", "categorical"):
        return lambda key, levels: levels.astype(jnp.int32)
    return lambda key, levels: levels.astype(jnp.float32) / (num_levels - 1)


def binarise(key: jax.Array, levels: jax.Array, num_levels: int) -> jax.Array:
    """Each pixel 1 with probability level / (num_levels - 1), by 16 random bits: right to 2^-17,
    exact at 0 and at 1.

    A word of 32 bits serves two pixels of an example: half the time of `jax.random.bits(...,
    jnp.uint16)`, which draws a word for each, and nothing that devices with examples of their own
    would have to send each other.
    """
    flat = levels.reshape(levels.shape[0], -1)  # one axis is faster on a CPU
    num = flat.shape[1]
    words = jax.random.bits(key, (flat.shape[0], -(-num // 2)), jnp.uint32)
    bits = jnp.concatenate([words >> 16, words & 0xFFFF], axis=1)[:, :num].astype(jnp.int32)
    threshold = jnp.round(flat.astype(jnp.float32) * (65536.0 / (num_levels - 1))).astype(jnp.int32)
    return (bits < threshold).astype(jnp.float32).reshape(levels.shape)


def to_unit(config: Any, x: np.ndarray, num_levels: int) -> np.ndarray:
    """x, or the mean of p(x | z), as grey in [0, 1] for pictures."""
    levels = config.model.likelihood in ("discretized_logistic", "categorical")
    return np.clip(np.asarray(x, np.float32) / (num_levels - 1 if levels else 1.0), 0.0, 1.0)


def _input_scale(config: Any, num_levels: int) -> float:
    return (
        1.0 / (num_levels - 1)
        if config.model.likelihood in ("discretized_logistic", "categorical")
        else 1.0
    )
