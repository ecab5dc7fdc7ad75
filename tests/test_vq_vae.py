"""The VQ-VAE against k-means, weighted means and enumeration; its prior, resets and resumption."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command_helpers import made
from helpers import keys, normal, tree_equal

import vi_jax as vi
from configs import vq
from experiments.run import session
from vi_jax.losses import batch_terms, negative_elbo
from vi_jax.models import architectures
from vi_jax.models._code_prior import CodePrior, init_code_prior
from vi_jax.models.vq_vae import init_codebook, move_codebook, vq_vae

SHAPE = (3, 2)
M = 2
K = 3
SIZE = 4


def tiny(**options):
    return vq_vae(
        SHAPE,
        num_positions=M,
        num_codes=K,
        code_size=SIZE,
        network=architectures.mlp((5,)),
        **{"prior_width": 3, **options},
    )


MODEL = tiny()
X = jnp.asarray(normal(1, 40, *SHAPE) > 0, jnp.float32)


@pytest.fixture(scope="module")
def params():
    """Away from the start, so that several codes are chosen and the prior is not uniform."""
    leaves, structure = jax.tree.flatten(jax.jit(MODEL.init)(jax.random.key(0)))
    moved = [
        leaf + 0.5 * jnp.asarray(normal(n, *leaf.shape), leaf.dtype)
        for n, leaf in enumerate(leaves)
    ]
    found = jax.tree.unflatten(structure, moved)
    found["encoder"] = jax.tree.map(lambda leaf: 2.0 * leaf, found["encoder"])
    found["codebook"] |= {
        "counts": jnp.ones(K),
        "unused": jnp.zeros(K),
        "distance": jnp.float32(0.5),
    }
    return found


def vectors_of(params, x):
    network = architectures.mlp((5,)).encoder(SHAPE, M * SIZE, None)
    return np.asarray(jax.vmap(lambda x: network.apply(params["encoder"], x))(x)).reshape(
        -1, M, SIZE
    )


def mean_stats(params, x):
    of_batch = jax.jit(lambda x: batch_terms(jax.random.key(0), MODEL, params, x).stats)
    stats = of_batch(x)
    return jax.tree.map(lambda leaf: leaf.mean(0), stats)


def nearest(r, codes):
    return ((r[:, :, None, :] - codes) ** 2).sum(-1).argmin(-1)


@pytest.mark.integration
def test_a_step_of_the_codebook_is_a_step_of_k_means(params):
    """At decay 0: each code goes to the mean of the vectors that are nearest to it."""
    model = tiny(decay=0.0)
    r = vectors_of(params, X)
    codes = np.asarray(params["codebook"]["codes"])
    chosen = nearest(r, codes)
    assert len(np.unique(chosen)) > 1
    moved = model.update(jax.random.key(0), params, mean_stats(params, X))["codebook"]["codes"]
    for k in range(K):
        mine = r[chosen == k]
        expected = mine.mean(0) if len(mine) else codes[k]
        np.testing.assert_allclose(moved[k], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.integration
def test_moving_averages_are_weighted_means_of_the_vectors(params):
    """Of three batches at decay d: weights d^2, d, 1 of each vector, and d^3 of the start."""
    decay = 0.7
    model = tiny(decay=decay)
    codebook = params["codebook"]
    total = np.asarray(codebook["counts"]) * decay**3
    sums = np.asarray(codebook["sums"]) * decay**3
    after = params
    for number, batch in enumerate((X[:10], X[10:25], X[25:])):
        r = vectors_of(params, batch)
        chosen = nearest(r, np.asarray(after["codebook"]["codes"]))
        weight = (1.0 - decay) * decay ** (2 - number) / len(batch)
        for k in range(K):
            total[k] += weight * (chosen == k).sum()
            sums[k] += weight * r[chosen == k].sum(0)
        after = model.update(jax.random.key(0), after, mean_stats(after, batch))
    np.testing.assert_allclose(
        after["codebook"]["codes"], sums / total[:, None], rtol=1e-4, atol=1e-5
    )


@pytest.mark.integration
def test_unused_codes_are_reset_to_where_the_vectors_are():
    """Vectors in two clusters, one code for each; the third is unused and becomes one of them with
    their spread.
    """
    codebook = init_codebook(jax.random.key(0), M, K, SIZE)
    codebook["codes"] = jnp.stack([jnp.full(SIZE, c) for c in (-5.0, 5.0, 100.0)])
    codebook["sums"] = codebook["codes"] * codebook["counts"][:, None]
    counts = jnp.array([0.5, 1.5, 0.0])
    stats = {
        "counts": counts,
        "sums": counts[:, None] * codebook["codes"],
        "squares": counts * 0.09 * SIZE,  # a standard deviation of 0.3
    }
    for _ in range(2):
        codebook = move_codebook(jax.random.key(1), codebook, stats, decay=0.9, reset_after=3)
        np.testing.assert_allclose(codebook["codes"][2], 100.0, rtol=1e-5)

    @jax.jit
    @jax.vmap
    def third(key):
        moved = move_codebook(key, codebook, stats, decay=0.9, reset_after=3)
        return moved["codes"], moved["unused"], moved["counts"]

    codes, unused, new_counts = map(np.asarray, third(keys(2, 400)))
    assert (unused == 0).all()
    np.testing.assert_allclose(codes[:, :2], codebook["codes"][None, :2].repeat(400, 0), rtol=1e-5)
    np.testing.assert_allclose(new_counts[:, 2], M / K)
    is_upper = codes[:, 2].mean(1) > 0
    assert abs(is_upper.mean() - 0.75) < 5 * (0.75 * 0.25 / 400) ** 0.5
    noise = codes[is_upper, 2] - 5.0
    assert abs(noise.std() - 0.3) < 0.03
    assert abs(noise.mean()) < 0.05


@pytest.mark.integration
def test_the_bound_is_below_log_p_of_the_softened_guide_and_of_enumeration(params, no_key_check):
    """All nine pairs of codes: log p(x) exactly. Importance samples reach it, the bound does
    not.
    """
    x = X[:8]
    grid = jnp.stack(
        [jnp.eye(K)[jnp.array(pair)] for pair in itertools.product(range(K), repeat=M)]
    )

    @jax.jit
    @jax.vmap
    def exact(x):
        log_joint = vi.losses.log_joint(MODEL, params, x)
        return jax.nn.logsumexp(jax.vmap(log_joint)(grid))

    log_p = np.asarray(exact(x))
    terms = jax.jit(lambda x: batch_terms(jax.random.key(0), MODEL, params, x))(x)
    bound = np.asarray(terms.log_lik - terms.kl["z"].sum(1))
    assert terms.kl["z"].shape == (8, M)
    assert (bound < log_p).all()
    soft = tiny(temperature=30.0)
    found = jax.jit(
        lambda x: vi.diagnostics.amortised.log_evidence(
            jax.random.key(1), soft, params, x, num_samples=4_000, chunk=1_000
        )
    )(x)
    np.testing.assert_allclose(found, log_p, atol=0.1)
    assert (np.asarray(found) > bound).all()


@pytest.mark.integration
def test_the_prior_is_a_distribution_that_is_sampled_as_it_is():
    params = init_code_prior(jax.random.key(0), 3, 2, 4)
    params["last"] = 2.0 * jnp.asarray(normal(1, *params["last"].shape), jnp.float32)
    prior = CodePrior(params, 3)
    grid = jnp.stack([jnp.eye(2)[jnp.array(row)] for row in itertools.product(range(2), repeat=3)])
    probs = np.exp(jax.vmap(prior.log_prob)(grid))
    np.testing.assert_allclose(probs.sum(), 1.0, rtol=1e-5)
    assert np.ptp(probs) > 0.05
    drawn = np.asarray(prior.sample(jax.random.key(2), (2_000,)))
    which = drawn.argmax(-1) @ np.array([4, 2, 1])
    shares = np.bincount(which, minlength=8) / 2_000
    assert (np.abs(shares - probs) < 5 * np.sqrt(probs / 2_000) + 1e-3).all()
    # a code changes the logits of those after it alone
    slopes = np.abs(jax.jacobian(prior.logits)(grid[3])).sum((1, 3))
    assert not np.triu(slopes).any()
    assert (slopes[np.tril_indices(3, -1)] > 0).all()


@pytest.mark.integration
def test_gradients_go_straight_through_and_the_commitment_is_a_penalty(params, x64):
    """The encoder's is that of the decoder at the codes plus that of beta |r - e|^2; the codebook
    has none, and the prior's is that of log p of the codes.
    """
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    x = X[0].astype(jnp.float64)
    terms = jax.jit(lambda p: MODEL.terms(jax.random.key(0), p, x))(wide)
    network = architectures.mlp((5,)).encoder(SHAPE, M * SIZE, None)

    def loss(p):
        found = MODEL.terms(jax.random.key(0), p, x)
        return found.log_lik - found.kl["z"].sum() - found.penalty

    gradient = jax.jit(jax.grad(loss))(wide)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["codebook"]))
    r, pull = jax.vjp(lambda p: network.apply(p, x), wide["encoder"])
    codes = wide["codebook"]["codes"]
    z = jax.nn.one_hot(nearest(np.asarray(r).reshape(1, M, SIZE), np.asarray(codes))[0], K)
    chosen = (z @ codes).ravel()
    np.testing.assert_allclose(terms.penalty, 0.25 * ((r - chosen) ** 2).sum(), rtol=1e-6)
    decoder = architectures.mlp((5,)).decoder(SHAPE, 1, M * SIZE, None, None)

    def log_lik(h):
        logits = decoder.apply(wide["decoder"], h)[..., 0]
        return (x * logits - jnp.logaddexp(0.0, logits)).sum()

    expected = pull(jax.grad(log_lik)(chosen) - 0.5 * (r - chosen))[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9),
        gradient["encoder"],
        expected,
    )
    of_prior = jax.grad(lambda p: CodePrior(p, M).log_prob(z))(wide["prior"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
        gradient["prior"],
        of_prior,
    )


@pytest.mark.integration
def test_a_run_that_is_resumed_ends_with_the_same_bits(no_key_check):
    """Codebook, resets and all: the state goes through the host after three of six blocks."""
    model = tiny(reset_after=2, decay=0.8)
    optimizer = optax.adam(1e-2)
    run = vi.make_run(vi.make_step(negative_elbo(model), optimizer, ema_decay=0.9), batch_size=10)
    start = vi.init_state(jax.random.key(0), model.init, optimizer, ema=True)
    copied = jax.tree.map(jnp.copy, start)
    whole, _ = run(start, X, 30)
    half, _ = run(copied, X, 14)
    key = jax.random.key_data(half.key)
    stored = jax.tree.map(np.asarray, half._replace(key=key))
    back = jax.tree.map(jnp.asarray, stored)
    back = back._replace(key=jax.random.wrap_key_data(back.key))
    resumed, _ = run(back, X, 16)
    assert tree_equal(whole.params, resumed.params)
    assert tree_equal(whole.ema, resumed.ema)
    assert tree_equal(whole.opt_state, resumed.opt_state)


@pytest.mark.integration
def test_a_run_says_how_many_codes_are_used():
    config = made(vq, model__network__hidden="(8,)", model__num_positions=3, model__num_codes=5)
    built = session.build_all(config)
    found = built.model.init(jax.random.key(0))
    measures = built.meter.measure(jax.random.key(1), found, built.x)
    summary = measures.summary
    assert summary["num_codes"] == 5
    assert 1 <= summary["codes_used"] <= 5
    assert 1.0 <= summary["code_perplexity"] <= summary["codes_used"]
    terms = batch_terms(jax.random.key(2), built.model, found, built.x)
    counts = np.asarray(terms.stats["codebook"]["counts"]).sum(0)
    assert summary["codes_used"] == (counts > 0).sum()
    assert "codes used over the split" in [row.title for row in built.meter.rows(summary)]


@pytest.mark.integration
def test_a_likelihood_of_its_own_update_keeps_it():
    model = tiny(likelihood=vi.models.likelihoods.gaussian_optimal(0.1), prior_width=0)
    found = jax.jit(model.init)(jax.random.key(0))
    assert "prior" not in found
    _, info = jax.jit(negative_elbo(model))(found, jax.random.key(1), X, jnp.int32(0))
    moved = info.params["likelihood"]["log_sigma"]
    assert moved != found["likelihood"]["log_sigma"]
    assert sum(info.moved.leaves) == 6  # five of the codebook, and sigma
    np.testing.assert_allclose(info.metrics["kl"], M * np.log(K), rtol=1e-5)


def test_annealing_refuses_codes(params):
    q = MODEL.densities.guide(params, X[0])
    log_joint = vi.losses.log_joint(MODEL, params, X[0])
    with pytest.raises(ValueError, match="are discrete"):
        vi.diagnostics.annealed.annealed_lower(jax.random.key(0), log_joint, q)


def test_sizes_that_cannot_be_are_refused():
    for bad in (
        dict(num_positions=0),
        dict(num_codes=1),
        dict(code_size=0),
        dict(prior_width=-1),
        dict(reset_after=0),
        dict(decay=1.0),
        dict(temperature=0.0),
    ):
        with pytest.raises(ValueError, match="vq_vae expects"):
            vq_vae(SHAPE, **bad)
