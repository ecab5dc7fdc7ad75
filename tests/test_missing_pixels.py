"""Imputation of images: the moments of each chain against the exact conditional of a linear
Gaussian model, whose guide is not its posterior.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal

import vi_jax as vi
from vi_jax.diagnostics import _filling, missing_pixels
from vi_jax.diagnostics._filling import pixels_like

SHAPE = (2, 3)
P = 6
D = 2
NOISE = 0.9
W = 0.5 * normal(0, P, D)
B = normal(1, P)
X = normal(2, P)
OBSERVED = np.array([True, False, True, False, False, True])
CHAINS = {
    "paper": functools.partial(missing_pixels.metropolis_within_gibbs, num_moves=0),
    "pseudo_gibbs": missing_pixels.pseudo_gibbs,
    "metropolis": missing_pixels.metropolis_within_gibbs,
    "importance": missing_pixels.importance_resampling,
}


def as_float(x):
    return jnp.asarray(x, jnp.result_type(float))


def posterior(x=X, rows=slice(None)):
    """Mean and covariance of z given some pixels."""
    w = W[rows]
    cov = np.linalg.inv(np.eye(D) + w.T @ w / NOISE**2)
    return cov @ w.T @ (x[rows] - B[rows]) / NOISE**2, cov


def conditional():
    """Mean [3] and covariance of x_miss given x_obs."""
    mean, cov = posterior(rows=OBSERVED)
    w = W[~OBSERVED]
    return w @ mean + B[~OBSERVED], w @ cov @ w.T + NOISE**2 * np.eye(3)


@functools.cache
def linear_model(shift=0.0, widening=1.0):
    """x = W z + b + noise; the guide is the posterior, shifted and widened."""
    _, cov = posterior()
    gain = cov @ W.T / NOISE**2
    tril = np.linalg.cholesky(cov) * widening

    def guide(params, x):
        loc = as_float(gain) @ (x.ravel() - as_float(B)) + shift
        return dist.MultivariateNormal(loc, scale_tril=as_float(tril))

    def decode(params, x, z):
        return dist.Normal((as_float(W) @ z + as_float(B)).reshape(SHAPE), NOISE)

    return vi.models.from_densities(
        lambda key: {},
        guide,
        lambda params, x: dist.Normal(jnp.zeros(D), jnp.ones(D)).to_event(1),
        decode,
        lambda params, x, z: decode(params, x, z).log_prob(x).sum(),
    )


def filled_by(name, model, num_chains, *, num_steps, burn_in, x=X, num_draws=1):
    """(Latents, Filled) of many chains, leaves [num_chains, ...]."""
    image = as_float(x).reshape(SHAPE)
    seen = jnp.asarray(OBSERVED).reshape(SHAPE)

    @jax.jit
    @jax.vmap
    def run(key):
        key_chain, key_fill = jax.random.split(key)
        latents = CHAINS[name](
            key_chain, model, {}, image, seen, num_steps=num_steps, burn_in=burn_in
        )
        found = missing_pixels.fill(key_fill, model, {}, image, seen, latents, num_draws=num_draws)
        return latents, found

    return run(keys(3, num_chains))


def missing_of(images):
    return np.asarray(images, np.float64).reshape(*images.shape[:-2], P)[..., ~OBSERVED]


def off_by(found):
    """How many standard errors the first two moments of x_miss are off, at most."""
    mean, cov = conditional()
    rows = missing_of(found.draws[:, 0])
    second = (rows - mean)[:, :, None] * (rows - mean)[:, None, :]
    each = np.concatenate([rows - mean, (second - cov).reshape(len(rows), -1)], 1)
    return np.abs(each.mean(0) / (each.std(0) / len(rows) ** 0.5)).max()


OFF = (0.3, 1.2)  # of the guide


@pytest.mark.cases(rest=None, slow=["paper"])
@pytest.mark.parametrize(
    "name",
    [
        "pseudo_gibbs",
        *(
            pytest.param(name, marks=pytest.mark.integration)
            for name in ("importance", "metropolis", "paper")
        ),
    ],
)
def test_the_last_states_have_the_moments_of_the_exact_conditional_or_miss_them(name):
    steps = (
        dict(num_steps=200, burn_in=1) if name == "importance" else dict(num_steps=1, burn_in=40)
    )
    num_chains = 1_000 if name == "importance" else 4_000
    latents, found = filled_by(name, linear_model(*OFF), num_chains, **steps)
    if name == "pseudo_gibbs":
        assert off_by(found) > 8
    else:
        assert off_by(found) < 5
    if name in ("metropolis", "paper"):
        assert 0.3 < latents.accepted.mean() < 0.95
    np.testing.assert_array_equal(
        np.asarray(found.draws).reshape(num_chains, P)[:, OBSERVED],
        np.broadcast_to(X[OBSERVED].astype(np.float32), (num_chains, 3)),
    )


@pytest.mark.integration
def test_moves_of_z_mend_a_chain_whose_guide_is_narrow():
    """By proposals alone few are accepted, and the chain is still where pseudo-Gibbs left it."""
    narrow = linear_model(0.5, 0.3)
    steps = dict(num_steps=1, burn_in=40)
    (by_moves, found) = filled_by("metropolis", narrow, 4_000, **steps)
    (_, others) = filled_by("paper", narrow, 4_000, **steps)
    assert by_moves.accepted.mean() < 0.3
    assert off_by(found) < 5
    assert off_by(others) > 8


@pytest.mark.integration
def test_a_random_walk_leaves_its_density_as_it_is():
    """Samples of it are samples of it after the moves, and others than before."""
    p = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.6], [0.6, 0.8]]))
    spread = {"a": jnp.float32(1.0), "b": jnp.float32(0.5)}

    def log_p(z):
        return p.log_prob(jnp.stack([z["a"], z["b"]]))

    @jax.jit
    @jax.vmap
    def moved(key):
        (key_z, key_walk) = jax.random.split(key)
        (a, b) = p.sample(key_z)
        return (a, b), _filling.walk(key_walk, log_p, {"a": a, "b": b}, spread, 5)

    (before, after) = moved(keys(0, 4_000))
    a = np.asarray(after["a"], np.float64)
    b = np.asarray(after["b"], np.float64)
    assert_mean(np.stack([a, b, a * a - 1.0, a * b - 0.6, b * b - 0.8], 1), 0.0)
    assert np.mean(a != np.asarray(before[0], np.float64)) > 0.9
    assert np.corrcoef(a, before[0])[0, 1] < 0.9


@pytest.mark.integration
def test_with_the_posterior_as_guide_all_of_them_are_right():
    for name in CHAINS:
        steps = dict(num_steps=200 if name == "importance" else 1, burn_in=40)
        latents, found = filled_by(name, linear_model(), 1_000, **steps)
        assert off_by(found) < 5
        np.testing.assert_allclose(latents.accepted, 1.0)
        if name == "importance":  # the weights still vary, with what was filled in
            assert np.median(latents.k_hat) < 0.5


@pytest.mark.cases(rest=None, slow=["importance"])
@pytest.mark.integration
@pytest.mark.parametrize("name", ["metropolis", "importance"])
def test_a_long_chain_has_the_means_and_log_probabilities_of_pixels(name):
    mean, cov = conditional()
    _, found = filled_by(name, linear_model(*OFF), 100, num_steps=400, burn_in=40, num_draws=2)
    assert_mean(missing_of(found.mean), mean)
    exact = dist.Normal(mean, np.sqrt(np.diag(cov))).log_prob(X[~OBSERVED])
    assert_mean(np.exp(missing_of(found.log_prob)), np.exp(np.asarray(exact, np.float64)))
    assert found.draws.shape == (100, 2, *SHAPE)
    np.testing.assert_array_equal(found.mean[0].ravel()[OBSERVED], X[OBSERVED].astype(np.float32))


@pytest.mark.cases(rest=None, slow=["paper", "pseudo_gibbs"])
@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(CHAINS))
def test_what_is_masked_changes_no_bit(name):
    other = np.where(OBSERVED, X, 1e3)
    runs = [
        filled_by(name, linear_model(*OFF), 2, num_steps=30, burn_in=3, x=x, num_draws=3)
        for x in (X, other)
    ]
    for (latents, found), (latents_of, found_of) in [runs]:
        same = (latents, found.mean, found.draws)
        same_of = (latents_of, found_of.mean, found_of.draws)
        for ours, theirs in zip(jax.tree.leaves(same), jax.tree.leaves(same_of), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.integration
def test_labels_stay_as_they_are_and_classes_have_means():
    model = vi.models.conditional_vae(SHAPE, 3, num_latents=2, hidden=(4,))
    params = jax.jit(model.init)(jax.random.key(0))
    x = {"image": as_float(X > 0).reshape(SHAPE), "label": jnp.int32(2)}
    observed = {"image": jnp.asarray(OBSERVED).reshape(SHAPE), "label": jnp.asarray(True)}
    latents = missing_pixels.metropolis_within_gibbs(
        jax.random.key(1), model, params, x, observed, num_steps=5, burn_in=2
    )
    found = missing_pixels.fill(jax.random.key(2), model, params, x, observed, latents, num_draws=3)
    assert np.all(found.draws["label"] == 2)
    assert found.draws["image"].shape == (3, *SHAPE)
    assert np.all((found.mean >= 0) & (found.mean <= 1))
    levels = vi.models.vae(
        SHAPE, num_latents=2, hidden=(4,), likelihood=vi.models.likelihoods.categorical(5)
    )
    params = jax.jit(levels.init)(jax.random.key(0))
    codes = jnp.arange(6).reshape(SHAPE) % 5
    seen = jnp.asarray(OBSERVED).reshape(SHAPE)
    latents = missing_pixels.pseudo_gibbs(
        jax.random.key(3), levels, params, codes, seen, num_steps=4, burn_in=1
    )
    found = missing_pixels.fill(jax.random.key(4), levels, params, codes, seen, latents)
    assert found.draws.dtype == codes.dtype
    assert np.all(np.isfinite(found.mean))


def test_what_cannot_be_is_refused():
    image = jnp.zeros(SHAPE)
    seen = jnp.zeros(SHAPE, bool)
    for options, words in [
        (dict(num_steps=0), "num_steps of at least 1"),
        (dict(burn_in=-1), "burn_in of at least 0"),
    ]:
        for chain in CHAINS.values():
            with pytest.raises(ValueError, match=words):
                chain(jax.random.key(0), linear_model(), {}, image, seen, **options)
    with pytest.raises(ValueError, match="num_steps of at least 25"):
        CHAINS["importance"](jax.random.key(0), linear_model(), {}, image, seen, num_steps=24)
    with pytest.raises(ValueError, match="pixels of one leaf"):
        pixels_like({"a": image, "b": image}, image)
