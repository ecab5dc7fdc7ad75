"""Ten posteriors of 100 to 2,000 latents for benchmarks.large, with simulated data of seed 0."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

Model = Callable[[], None]


def _normal(name: str, *shape: int, scale: float = 1.0) -> jnp.ndarray:
    """A site of independent normals."""
    return numpyro.sample(name, dist.Normal(0.0, scale).expand(shape).to_event(len(shape)))


def stochastic_volatility() -> Model:
    """Log variances of 500 returns, an autoregression, centred; 503 latents."""
    rng = np.random.default_rng(0)
    h = np.zeros(500)
    for t in range(1, 500):
        h[t] = 0.95 * h[t - 1] + 0.25 * rng.normal()
    y = jnp.asarray(np.exp(0.5 * (h - 1)) * rng.normal(size=500))

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        phi = numpyro.sample("phi", dist.Beta(20.0, 1.5))
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
        free = dist.ImproperUniform(dist.constraints.real, (), event_shape=(500,))
        h = numpyro.sample("h", free)
        first = dist.Normal(mu, sigma / jnp.sqrt(1 - phi**2)).log_prob(h[0])
        moves = dist.Normal(mu + phi * (h[:-1] - mu), sigma).log_prob(h[1:]).sum()
        numpyro.factor("chain", first + moves)
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)), obs=y)

    return model


def spatial_poisson() -> Model:
    """Counts on a lattice of 32 x 32 under a conditional autoregression; 1,026 latents."""
    rng = np.random.default_rng(0)
    side = 32
    i, j = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    field = np.sin(i / 5.0) + np.cos(j / 6.0)
    y = jnp.asarray(rng.poisson(np.exp(0.5 + 0.6 * field)))

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        free = dist.ImproperUniform(dist.constraints.real, (), event_shape=(side, side))
        f = numpyro.sample("f", free)
        steps = jnp.sum(jnp.diff(f, axis=0) ** 2) + jnp.sum(jnp.diff(f, axis=1) ** 2)
        energy = 0.5 * (steps + 0.05 * jnp.sum(f**2)) / scale**2
        numpyro.factor("field", -energy - side**2 * jnp.log(scale))
        numpyro.sample("y", dist.Poisson(jnp.exp(mean + f)), obs=y)

    return model


def item_response_600() -> Model:
    """560 pupils answer 20 items of their own difficulty and discrimination; 602 latents."""
    rng = np.random.default_rng(1)
    ability = rng.normal(size=560)
    hard = rng.normal(size=20)
    sharp = np.exp(0.3 * rng.normal(size=20))
    p = 1 / (1 + np.exp(-sharp * (ability[:, None] - hard)))
    y = jnp.asarray((rng.uniform(size=p.shape) < p).astype(int))

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        b = numpyro.sample("b", dist.Normal(mean, scale).expand([20]).to_event(1))
        a = numpyro.sample("a", dist.LogNormal(0.0, 0.5).expand([20]).to_event(1))
        t = _normal("t", 560)
        numpyro.sample("y", dist.Bernoulli(logits=a * (t[:, None] - b)), obs=y)

    return model


def disease_map() -> Model:
    """Besag, York and Mollie's map of 225 areas, structured and unstructured; 453 latents."""
    rng = np.random.default_rng(0)
    side = 15
    i = np.arange(side)[:, None]
    rate = 0.4 * np.sin(i / 3.0) + 0.3 * rng.normal(size=(side, side))
    y = jnp.asarray(rng.poisson(8 * np.exp(rate)))

    def model() -> None:
        level = numpyro.sample("level", dist.Normal(0.0, 2.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        share = numpyro.sample("share", dist.Beta(1.0, 1.0))
        free = dist.ImproperUniform(dist.constraints.real, (), event_shape=(side, side))
        phi = numpyro.sample("phi", free)
        theta = _normal("theta", side, side)
        steps = jnp.sum(jnp.diff(phi, axis=0) ** 2) + jnp.sum(jnp.diff(phi, axis=1) ** 2)
        numpyro.factor("field", -0.5 * steps - 0.5 * 0.01 * jnp.sum(phi**2))
        effect = scale * (jnp.sqrt(share) * phi + jnp.sqrt(1 - share) * theta)
        numpyro.sample("y", dist.Poisson(8 * jnp.exp(level + effect)), obs=y)

    return model


def groups_with_slopes() -> Model:
    """200 groups with an intercept and two slopes, centred; 607 latents."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(200), 12)
    x = np.concatenate([np.ones((2400, 1)), rng.normal(size=(2400, 2))], 1)
    effects = np.array([1.0, -0.5, 0.3]) + rng.normal(size=(200, 3)) * np.array([0.8, 0.4, 0.5])
    y = jnp.asarray((x * effects[group]).sum(1) + 0.7 * rng.normal(size=2400))

    def model() -> None:
        mean = _normal("mean", 3, scale=3.0)
        scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
        effect = numpyro.sample("effect", dist.Normal(mean, scale).expand([200, 3]).to_event(2))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal((x * effect[group]).sum(1), sigma), obs=y)

    return model


def binary_groups() -> Model:
    """Binary outcomes of 400 groups, ten each, centred; 402 latents."""
    rng = np.random.default_rng(0)
    rate = -0.5 + 0.8 * rng.normal(size=400)
    y = jnp.asarray(rng.binomial(10, 1 / (1 + np.exp(-rate))))

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        z = numpyro.sample("z", dist.Normal(mean, scale).expand([400]).to_event(1))
        numpyro.sample("y", dist.Binomial(10, logits=z), obs=y)

    return model


def sparse_logistic() -> Model:
    """250 rows, 150 weights under a horseshoe prior with a slab, non-centred; 302 latents."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(250, 150)))
    weights = np.zeros(150)
    weights[:5] = [2.5, -2.0, 1.5, -1.5, 2.0]
    rate = 1 / (1 + np.exp(-np.asarray(x) @ weights))
    y = jnp.asarray((rng.uniform(size=250) < rate).astype(int))

    def model() -> None:
        tau = numpyro.sample("tau", dist.HalfNormal(0.2))
        local = numpyro.sample("local", dist.HalfCauchy(1.0).expand([150]).to_event(1))
        z = _normal("z", 150)
        level = numpyro.sample("level", dist.Normal(0.0, 2.0))
        scale = tau * local / jnp.sqrt(1 + (tau * local / 2.0) ** 2)
        numpyro.sample("y", dist.Bernoulli(logits=level + x @ (scale * z)), obs=y)

    return model


def local_level() -> Model:
    """A local level with its trend under Gaussian noise, 400 steps; 803 latents."""
    rng = np.random.default_rng(0)
    slope = np.cumsum(0.05 * rng.normal(size=400))
    y = jnp.asarray(np.cumsum(slope + 0.3 * rng.normal(size=400)) + rng.normal(size=400))

    def model() -> None:
        scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
        slope = numpyro.sample("slope", dist.GaussianRandomWalk(scale[0], num_steps=400))
        free = dist.ImproperUniform(dist.constraints.real, (), event_shape=(400,))
        level = numpyro.sample("level", free)
        moves = dist.Normal(level[:-1] + slope[1:], scale[1]).log_prob(level[1:]).sum()
        numpyro.factor("level_moves", moves + dist.Normal(0.0, 5.0).log_prob(level[0]))
        numpyro.sample("y", dist.Normal(level, scale[2]), obs=y)

    return model


def gaussian_process() -> Model:
    """A Gaussian process of 128 inputs under Poisson counts, non-centred; 130 latents."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 10, 128)
    y = jnp.asarray(rng.poisson(np.exp(1 + np.sin(x))))
    gap = jnp.asarray((x[:, None] - x) ** 2)

    def model() -> None:
        length = numpyro.sample("length", dist.LogNormal(0.0, 0.5))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        z = _normal("z", 128)
        kernel = scale**2 * jnp.exp(-0.5 * gap / length**2) + 1e-4 * jnp.eye(128)
        numpyro.sample("y", dist.Poisson(jnp.exp(1 + jnp.linalg.cholesky(kernel) @ z)), obs=y)

    return model


def neural_network() -> Model:
    """A Bayesian network of one hidden layer of 20 units on 4 inputs; 122 latents."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = jnp.asarray(np.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=200))

    def model() -> None:
        first = _normal("first", 4, 20)
        offset = _normal("offset", 20)
        last = _normal("last", 20, scale=0.5)
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
        hidden = jnp.tanh(x @ first + offset)
        numpyro.sample("y", dist.Normal(level + hidden @ last, sigma), obs=y)

    return model


MODELS: dict[str, Callable[[], Model]] = {
    "stochastic volatility": stochastic_volatility,
    "spatial Poisson": spatial_poisson,
    "item response": item_response_600,
    "disease map": disease_map,
    "groups with slopes": groups_with_slopes,
    "binary groups": binary_groups,
    "sparse logistic": sparse_logistic,
    "local level": local_level,
    "Gaussian process": gaussian_process,
    "neural network": neural_network,
}
