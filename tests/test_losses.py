"""Losses against the same numbers worked out in NumPy, their weights and schedules, and the sigma
of a Gaussian.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, keys, normal, tree_allclose
from scipy import stats

import vi_jax as vi
from vi_jax.losses import (
    batch_terms,
    cyclical_warmup,
    linear_warmup,
    negative_bound,
    negative_elbo,
)
from vi_jax.models import amortised, likelihoods, vae
from vi_jax.models.networks import Network

NARROW = -30.0  # log sigma of guides whose draws are their means, to the last bit of float32
STEP = jnp.int32(0)
B = 5
D = 2
PIXELS = 6


def linear_vae(likelihood=None, *, log_scale=None, x_shape=(PIXELS,), seed=0):
    """An encoder and a decoder of one matrix each; log sigma is given, or the encoder's too."""
    size = int(np.prod(x_shape))
    encoder = 0.4 * normal(seed, 2 * D, size)
    decoder = normal(seed + 1, size, D)

    def encode(params, x):
        row = params["w"] @ x.ravel()
        return row if log_scale is None else jnp.concatenate([row[:D], jnp.full(D, log_scale)])

    def decode(num_outputs):
        w = np.stack([decoder] * num_outputs) * (0.3 + np.arange(num_outputs))[:, None, None]
        return Network(
            lambda key: {"w": jnp.asarray(w, jnp.float32)},
            lambda params, z: jnp.moveaxis(params["w"] @ z, 0, -1).reshape(*x_shape, num_outputs),
        )

    return amortised(
        x_shape,
        lambda num_outputs: Network(lambda key: {"w": jnp.asarray(encoder, jnp.float32)}, encode),
        decode,
        vi.families.mean_field(D),
        likelihood or likelihoods.bernoulli(),
        num_latents=D,
    )


def binary(*shape, seed=3):
    return jnp.asarray(normal(seed, *shape) > 0, jnp.float32)


def by_hand(x, log_scale=NARROW):
    """log_lik [B] and kl [B, D] of `linear_vae(log_scale=...)` in float64, with z at its mean."""
    x = np.asarray(x, np.float64)
    encoder = 0.4 * normal(0, 2 * D, PIXELS)
    decoder = 0.3 * normal(1, PIXELS, D)
    loc = x @ encoder[:D].T
    logits = loc @ decoder.T
    log_lik = (x * logits - np.logaddexp(0, logits)).sum(-1)
    kl = 0.5 * (loc**2 + np.exp(2 * log_scale) - 1 - 2 * log_scale)
    return log_lik, kl


def run(loss, model, x, *, seed=1, step=STEP, params=None):
    params = model.init(jax.random.key(0)) if params is None else params
    return jax.jit(loss)(params, jax.random.key(seed), x, step)


def gradient_of(loss, params, x, seed=1, step=STEP):
    return jax.jit(jax.grad(loss, has_aux=True))(params, jax.random.key(seed), x, step)[0]


@pytest.mark.integration
def test_terms_are_those_worked_out_by_hand():
    model = linear_vae(log_scale=NARROW)
    x = binary(B, PIXELS)
    terms = batch_terms(jax.random.key(1), model, model.init(jax.random.key(0)), x, num_samples=3)
    log_lik, kl = by_hand(x)
    assert terms.log_lik.shape == (B,)
    assert terms.kl["z"].shape == (B, D)
    np.testing.assert_allclose(terms.log_lik, log_lik, rtol=1e-5)
    np.testing.assert_allclose(terms.kl["z"], kl, rtol=1e-5)


def test_the_loss_is_a_sum_over_pixels_and_a_mean_over_the_batch():
    model = linear_vae(log_scale=NARROW)
    x = binary(B, PIXELS)
    log_lik, kl = by_hand(x)
    loss, info = run(negative_elbo(model), model, x)
    np.testing.assert_allclose(loss, -(log_lik - kl.sum(-1)).mean(), rtol=1e-5)
    np.testing.assert_allclose(info.metrics["elbo"], -loss, rtol=1e-6)
    np.testing.assert_allclose(info.metrics["log_lik"], log_lik.mean(), rtol=1e-5)
    np.testing.assert_allclose(info.metrics["kl"], kl.sum(-1).mean(), rtol=1e-5)
    # the same pixels twice weigh twice, the same examples twice weigh the same
    np.testing.assert_allclose(
        run(negative_elbo(model), model, jnp.tile(x, (2, 1)))[0], loss, rtol=1e-5
    )


@pytest.mark.cases(rest="integration", default=["full_rank"])
@pytest.mark.parametrize("family", [vi.families.mean_field, vi.families.full_rank])
def test_terms_add_up_to_the_loss_on_the_same_key(family):
    model = vae((PIXELS,), num_latents=D, hidden=(4,), family=family)
    x = binary(B, PIXELS)
    params = model.init(jax.random.key(0))
    terms = batch_terms(jax.random.key(7), model, params, x, num_samples=2)
    assert terms.kl["z"].shape == ((B, D) if family is vi.families.mean_field else (B,))
    elbo = terms.log_lik - terms.kl["z"].reshape(B, -1).sum(-1)
    loss, _ = run(negative_elbo(model, num_samples=2), model, x, seed=7, params=params)
    np.testing.assert_allclose(loss, -elbo.mean(), rtol=1e-5)


@pytest.mark.integration
def test_examples_draw_with_keys_of_their_own():
    model = linear_vae(log_scale=0.0)
    x = jnp.tile(binary(1, PIXELS), (B, 1))
    log_lik = batch_terms(jax.random.key(1), model, model.init(jax.random.key(0)), x).log_lik
    assert len(np.unique(log_lik)) == B


def test_the_reported_elbo_knows_nothing_of_beta_and_free_bits():
    model = linear_vae()
    x = binary(B, PIXELS)
    plain = run(negative_elbo(model), model, x)[1].metrics
    for options in (
        dict(beta=0.1),
        dict(beta=4.0),
        dict(free_bits=3.0),
        dict(beta=linear_warmup(10)),
    ):
        loss, info = run(negative_elbo(model, **options), model, x)
        for name in ("elbo", "log_lik", "kl"):
            np.testing.assert_allclose(info.metrics[name], plain[name], rtol=1e-6)
        assert abs(loss + plain["elbo"]) > 0.01  # while the loss itself does


@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0])
def test_beta_weighs_the_kl(beta):
    model = linear_vae(log_scale=NARROW)
    x = binary(B, PIXELS)
    log_lik, kl = by_hand(x)
    loss, info = run(negative_elbo(model, beta=beta), model, x)
    np.testing.assert_allclose(loss, -log_lik.mean() + beta * kl.sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(info.metrics["beta"], beta, rtol=1e-6)


def test_free_bits_are_a_floor_under_the_mean_kl_of_each_dimension():
    model = linear_vae(log_scale=-0.2)
    x = binary(B, PIXELS)
    terms = batch_terms(jax.random.key(1), model, model.init(jax.random.key(0)), x)
    mean_kl = by_hand(x, -0.2)[1].mean(0)
    np.testing.assert_allclose(terms.kl["z"].mean(0), mean_kl, rtol=1e-5)
    between = float(mean_kl.mean())  # one dimension above, one below
    assert mean_kl.min() < between < mean_kl.max()
    plain, _ = run(negative_elbo(model), model, x)
    for free_bits in (0.5 * mean_kl.min(), between, 2.0 * mean_kl.max()):
        loss, _ = run(negative_elbo(model, free_bits=float(free_bits)), model, x)
        extra = np.maximum(mean_kl, free_bits).sum() - mean_kl.sum()
        np.testing.assert_allclose(loss - plain, extra, rtol=1e-4, atol=2e-6)


def test_a_schedule_is_read_at_the_step():
    model = linear_vae(log_scale=NARROW)
    x = binary(B, PIXELS)
    log_lik, kl = by_hand(x)
    loss = negative_elbo(model, beta=linear_warmup(10, final=2.0))
    for step, beta in [(0, 0.0), (5, 1.0), (10, 2.0), (50, 2.0)]:
        value, info = run(loss, model, x, step=jnp.int32(step))
        np.testing.assert_allclose(info.metrics["beta"], beta, rtol=1e-6)
        np.testing.assert_allclose(value, -log_lik.mean() + beta * kl.sum(-1).mean(), rtol=1e-5)


def test_schedules():
    linear = linear_warmup(8, final=0.5)
    np.testing.assert_allclose(
        [linear(jnp.int32(t)) for t in (0, 2, 4, 8, 100)], [0, 0.125, 0.25, 0.5, 0.5]
    )
    cycle = cyclical_warmup(10, ramp=0.5, final=2.0)
    once = [cycle(jnp.int32(t)) for t in range(10)]
    np.testing.assert_allclose(once, [0, 0.4, 0.8, 1.2, 1.6, 2, 2, 2, 2, 2], rtol=1e-6)
    np.testing.assert_allclose([cycle(jnp.int32(t)) for t in range(30, 40)], once)
    for bad in (
        lambda: linear_warmup(0),
        lambda: cyclical_warmup(0),
        lambda: cyclical_warmup(5, ramp=0.0),
    ):
        with pytest.raises(ValueError, match="at least 1 step"):
            bad()


# Gaussian likelihoods and their sigma.


def real(*shape, seed=4):
    return jnp.asarray(normal(seed, *shape), jnp.float32)


@pytest.mark.integration
@pytest.mark.parametrize("sigma", [0.2, 1.7])
def test_fixing_sigma_is_weighing_the_kl(sigma):
    """sigma^2 (SE / (2 sigma^2) + KL) = SE / 2 + sigma^2 KL: the gradients are proportional, beta =
    sigma^2.
    """
    x = real(B, PIXELS)
    by_sigma = linear_vae(likelihoods.gaussian(sigma))
    by_beta = linear_vae(likelihoods.gaussian(1.0))
    params = by_sigma.init(jax.random.key(0))
    first = gradient_of(negative_elbo(by_sigma), params, x)
    second = gradient_of(negative_elbo(by_beta, beta=sigma**2), params, x)
    assert tree_allclose(
        jax.tree.map(lambda leaf: leaf * sigma**2, first), second, rtol=1e-4, atol=1e-4
    )
    wrong = gradient_of(negative_elbo(by_beta, beta=sigma), params, x)
    assert not tree_allclose(wrong, second, rtol=1e-2, atol=1e-2)


def test_a_gaussian_loss_by_hand():
    x = real(B, PIXELS)
    model = linear_vae(likelihoods.gaussian(0.5), log_scale=NARROW)
    loc = np.asarray(x, np.float64) @ (0.4 * normal(0, 2 * D, PIXELS))[:D].T
    square = ((x - loc @ (0.3 * normal(1, PIXELS, D)).T) ** 2).sum(-1)
    log_lik = -square / (2 * 0.25) - PIXELS / 2 * np.log(2 * np.pi * 0.25)
    _, info = run(negative_elbo(model), model, x)
    np.testing.assert_allclose(info.metrics["log_lik"], log_lik.mean(), rtol=1e-5)


def test_the_optimal_sigma_is_the_mean_square_error_of_the_batch():
    x = real(B, PIXELS)
    model = linear_vae(likelihoods.gaussian_optimal(), log_scale=NARROW)
    loc = np.asarray(x, np.float64) @ (0.4 * normal(0, 2 * D, PIXELS))[:D].T
    mean_square = ((x - loc @ (0.3 * normal(1, PIXELS, D)).T) ** 2).mean()
    _, info = run(negative_elbo(model, num_samples=2), model, x)
    np.testing.assert_allclose(
        np.exp(2 * info.params["likelihood"]["log_sigma"]), mean_square, rtol=1e-5
    )
    # -log p(x | z) at the optimum: (D_x / 2) (log(2 pi sigma^2) + 1)
    np.testing.assert_allclose(
        info.metrics["log_lik"], -PIXELS / 2 * (np.log(2 * np.pi * mean_square) + 1), rtol=1e-5
    )


def test_no_other_sigma_has_a_lower_loss_on_the_same_draws():
    x = real(B, PIXELS)
    optimal = linear_vae(likelihoods.gaussian_optimal())
    best, info = run(negative_elbo(optimal, num_samples=3), optimal, x)
    sigma = float(jnp.exp(info.params["likelihood"]["log_sigma"]))
    trained = linear_vae(likelihoods.gaussian_learned())  # the same density, its sigma handed in
    params = trained.init(jax.random.key(0))
    loss = jax.jit(negative_elbo(trained, num_samples=3))

    def loss_at(factor):
        at = {**params, "likelihood": {"log_sigma": jnp.log(jnp.float32(sigma * factor))}}
        return loss(at, jax.random.key(1), x, STEP)[0]

    np.testing.assert_allclose(loss_at(1.0), best, rtol=1e-5)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert loss_at(factor) > best


def test_the_optimal_sigma_needs_no_gradient():
    x = real(B, PIXELS)
    optimal = linear_vae(likelihoods.gaussian_optimal())
    params = optimal.init(jax.random.key(0))
    _, info = run(negative_elbo(optimal), optimal, x)
    fixed = linear_vae(likelihoods.gaussian(float(jnp.exp(info.params["likelihood"]["log_sigma"]))))
    ours, theirs = (gradient_of(negative_elbo(model), params, x) for model in (optimal, fixed))
    assert tree_allclose(ours["encoder"], theirs["encoder"], rtol=1e-4, atol=1e-4)
    assert tree_allclose(ours["decoder"], theirs["decoder"], rtol=1e-4, atol=1e-4)
    assert ours["likelihood"]["log_sigma"] == 0.0


@pytest.mark.parametrize(
    ("make", "shape"),
    [(likelihoods.gaussian_learned, ()), (likelihoods.gaussian_per_dimension, (PIXELS,))],
)
def test_a_learned_sigma_has_the_gradient_of_the_density(make, shape):
    """d/d log sigma of -log p = D_x - SE / sigma^2, for each sigma over its own dimensions."""
    x = real(B, PIXELS)
    model = linear_vae(make(0.7), log_scale=NARROW)
    params = model.init(jax.random.key(0))
    assert params["likelihood"]["log_sigma"].shape == shape
    np.testing.assert_allclose(jnp.exp(params["likelihood"]["log_sigma"]), 0.7, rtol=1e-6)
    loc = np.asarray(x, np.float64) @ (0.4 * normal(0, 2 * D, PIXELS))[:D].T
    square = ((x - loc @ (0.3 * normal(1, PIXELS, D)).T) ** 2).mean(0)  # [PIXELS]
    expected = 1 - square / 0.49
    gradient = gradient_of(negative_elbo(model), params, x)["likelihood"]["log_sigma"]
    np.testing.assert_allclose(gradient, expected if shape else expected.sum(), rtol=1e-4)


# Other bounds.


def test_the_analytic_elbo_is_below_iwae_in_the_mean():
    model = linear_vae()
    x = binary(B, PIXELS)
    params = model.init(jax.random.key(0))
    elbo = negative_elbo(model)
    iwae = negative_bound(model, vi.bounds.iwae, vi.estimators.reparam, num_samples=16)
    losses = [
        jax.jit(jax.vmap(lambda key, f=f: f(params, key, x, STEP)[0]))(keys(2, 500))
        for f in (elbo, iwae)
    ]
    gap = np.asarray(losses[0] - losses[1])
    assert gap.mean() > 5 * gap.std() / len(gap) ** 0.5


def test_sampled_and_analytic_elbo_agree_in_the_mean():
    model = linear_vae()
    x = binary(B, PIXELS)
    params = model.init(jax.random.key(0))
    analytic = negative_elbo(model)
    sampled = negative_bound(model, vi.bounds.elbo, vi.estimators.reparam)
    a, b = (
        jax.jit(jax.vmap(lambda key, f=f: f(params, key, x, STEP)[0]))(keys(3, 2000))
        for f in (analytic, sampled)
    )
    assert abs(a.mean() - b.mean()) < 5 * ((a.var() + b.var()) / 2000) ** 0.5


@pytest.mark.integration
def test_iwae_with_many_draws_is_the_evidence():
    """One latent line through two pixels: the evidence by quadrature."""
    model = vae((2,), num_latents=1, hidden=(3,))
    params = model.init(jax.random.key(0))
    x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    z = np.linspace(-10, 10, 4001)
    log_lik = jax.vmap(
        lambda x: jax.vmap(lambda z: model.densities.log_lik(params, x, z))(
            jnp.asarray(z, jnp.float32)[:, None]
        )
    )(x)
    evidence = np.log(
        (np.exp(np.asarray(log_lik, np.float64)) * stats.norm.pdf(z)).sum(-1) * (z[1] - z[0])
    )
    loss = negative_bound(
        model, vi.bounds.iwae, vi.estimators.reparam, num_samples=4000, name="iwae"
    )
    value, info = run(loss, model, x, params=params)
    np.testing.assert_allclose(value, -evidence.mean(), atol=5e-3)
    np.testing.assert_allclose(info.metrics["iwae"], -value, rtol=1e-6)
    assert all_finite(gradient_of(loss, params, x))


def test_what_cannot_be_is_refused():
    model = linear_vae()
    with pytest.raises(ValueError, match="at least 0; got -1"):
        negative_elbo(model, free_bits=-1.0)
    full = vae((PIXELS,), num_latents=D, hidden=(4,), family=vi.families.full_rank)
    with pytest.raises(ValueError, match="per latent dimension"):
        run(negative_elbo(full, free_bits=0.5), full, binary(B, PIXELS))
    with pytest.raises(ValueError, match="at least 1"):
        run(negative_elbo(model, num_samples=0), model, binary(B, PIXELS))


@pytest.mark.cases(rest="slow", default=["elbo-shape1"], integration=["iwae-shape2"])
@pytest.mark.parametrize("shape", [(7,), (4, 5), (4, 5, 3)])
@pytest.mark.parametrize("loss", ["elbo", "iwae"])
def test_examples_of_any_rank(shape, loss):
    model = vae(shape, num_latents=D, hidden=(4,))
    x = binary(3, *shape)
    make = (
        negative_elbo(model)
        if loss == "elbo"
        else negative_bound(model, vi.bounds.iwae, vi.estimators.reparam)
    )
    params = model.init(jax.random.key(0))
    value, _ = run(make, model, x, params=params)
    per_pixel = value / np.prod(shape)
    assert 0.5 < per_pixel < 1.2  # an untrained decoder: about log 2 a pixel, whatever the rank
    assert all_finite(gradient_of(make, params, x))


@pytest.mark.integration
@pytest.mark.parametrize("make", [likelihoods.discretized_logistic, likelihoods.categorical])
def test_levels(make):
    model = vae((4, 3), num_latents=D, hidden=(4,), likelihood=make(16))
    levels = jnp.asarray(np.random.default_rng(0).integers(0, 16, (B, 4, 3)))
    params = model.init(jax.random.key(0))
    _, info = run(negative_elbo(model), model, levels, params=params)
    bits = -info.metrics["log_lik"] / (12 * np.log(2))
    # uniform levels have 4 bits; an untrained model is above that, and not by much
    assert 3.5 < bits < 8
    gradient = gradient_of(negative_elbo(model), params, levels)
    assert all_finite(gradient)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
