"""Conjugate models: factors against their distributions, sweeps against updates typed from the
papers, bounds against the truth.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import gammaln, logsumexp, psi

import vi_jax as vi
from vi_jax.conjugate import (
    cavi,
    engine,
    factors,
    gaussian_mixture,
    linear_regression,
    logistic_regression,
    mixtures,
    svi,
)
from vi_jax.conjugate import normal_gamma_mixture as ngm

RNG = np.random.default_rng(0)


def clusters(num_data, locs, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    locs = np.atleast_2d(locs)
    return locs[rng.integers(len(locs), size=num_data)] + scale * rng.standard_normal(
        (num_data, locs.shape[1])
    )


def regression(num_data=60, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(num_data), rng.standard_normal((num_data, 3))])
    return x, x @ np.array([0.5, 1.0, -2.0, 0.0]) + 0.7 * rng.standard_normal(num_data)


def labels(num_data=40, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(num_data), 1.5 * rng.standard_normal(num_data)])
    return x, (rng.uniform(size=num_data) < 1 / (1 + np.exp(-x @ np.array([-0.5, 1.2])))).astype(
        float
    )


@pytest.mark.integration
def test_gradients_of_log_normalisers_are_the_expectations(x64):
    dirichlet = jax.grad(factors.dirichlet)({"log": jnp.array([0.5, 1.0, 2.0])})
    np.testing.assert_allclose(dirichlet["log"], psi([1.5, 2.0, 3.0]) - psi(6.5), rtol=1e-12)
    gamma = jax.grad(factors.gamma)({"log": jnp.array(2.0), "minus": jnp.array(1.5)})
    np.testing.assert_allclose(
        [gamma["log"], gamma["minus"]], [psi(3.0) - np.log(1.5), -2.0], rtol=1e-12
    )
    normal = jax.grad(factors.normal)({"shift": jnp.array(2.0), "precision": jnp.array(4.0)})
    np.testing.assert_allclose(
        [normal["shift"], normal["precision"]], [0.5, -0.5 * (0.25 + 0.25)], rtol=1e-12
    )
    mean = jnp.array([1.0, -2.0])
    precision = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    vector = jax.grad(factors.vector_normal)({"shift": precision @ mean, "precision": precision})
    np.testing.assert_allclose(vector["shift"], mean, rtol=1e-12)
    np.testing.assert_allclose(
        vector["precision"], -0.5 * (jnp.linalg.inv(precision) + jnp.outer(mean, mean)), rtol=1e-12
    )
    a = 3.0
    b = 1.5
    k = 2.0
    m = 0.7
    natural = {"log": a - 0.5, "minus": b + 0.5 * k * m**2, "shift": k * m, "precision": k}
    joint = jax.grad(factors.normal_gamma)(jax.tree.map(jnp.asarray, natural))
    wanted = {
        "log": psi(a) - np.log(b),
        "minus": -a / b,
        "shift": m * a / b,
        "precision": -0.5 * (1 / k + m**2 * a / b),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(joint[name], value, rtol=1e-12)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("log_normaliser", "natural", "as_distribution", "statistics"),
    [
        (
            factors.dirichlet,
            {"log": [0.5, 1.0]},
            factors.as_dirichlet,
            lambda z: {"log": jnp.log(z)},
        ),
        (
            factors.gamma,
            {"log": 2.0, "minus": 1.5},
            factors.as_gamma,
            lambda z: {"log": jnp.log(z), "minus": -z},
        ),
        (
            factors.normal,
            {"shift": 2.0, "precision": 4.0},
            factors.as_normal,
            lambda z: {"shift": z, "precision": -(z**2) / 2},
        ),
        (
            factors.vector_normal,
            {"shift": [1.0, 2.0], "precision": [[2.0, 0.5], [0.5, 1.0]]},
            factors.as_vector_normal,
            lambda z: {"shift": z, "precision": -jnp.outer(z, z) / 2},
        ),
    ],
)
def test_densities_are_those_of_the_distributions(
    log_normaliser, natural, as_distribution, statistics
):
    natural = {name: jnp.asarray(value) for name, value in natural.items()}
    q = as_distribution(natural)
    z = q.sample(jax.random.key(0))
    np.testing.assert_allclose(
        engine.inner(natural, statistics(z)) - log_normaliser(natural), q.log_prob(z), rtol=1e-4
    )


def blei_by_hand(x, shift, precision, prior_scale, num_sweeps):
    """Algorithm 2 and eq. 21 of Blei et al. (2017), typed as they stand: m, s^2 and the ELBO of
    each sweep.
    """
    (num_components, num_dims) = shift.shape
    elbos = []
    m = shift / precision
    s2 = 1 / precision
    for _ in range(num_sweeps):
        phi = np.exp(x @ m.T - 0.5 * (s2 + m**2).sum(1))
        phi /= phi.sum(1, keepdims=True)
        s2 = np.repeat(1 / (1 / prior_scale**2 + phi.sum(0))[:, None], num_dims, 1)
        m = s2 * (phi.T @ x)
        log_prior = np.sum(
            -0.5 * np.log(2 * np.pi * prior_scale**2) - 0.5 * (s2 + m**2) / prior_scale**2
        )
        square = (x**2).sum(1)[:, None] - 2 * x @ m.T + (s2 + m**2).sum(1)
        log_joint = np.sum(
            phi * (-np.log(num_components) - 0.5 * num_dims * np.log(2 * np.pi) - 0.5 * square)
        )
        entropy = -np.sum(phi * np.log(phi + 1e-300)) + np.sum(0.5 * np.log(2 * np.pi * np.e * s2))
        elbos.append(log_prior + log_joint + entropy)
    return m, s2, elbos


@pytest.mark.integration
@pytest.mark.parametrize(
    "locs",
    [
        pytest.param([[-3.0], [0.0], [4.0]], marks=pytest.mark.slow),
        [[-3.0, 1.0], [0.0, 0.0], [2.0, -4.0]],
    ],
    ids=["1D", "2D"],
)
def test_a_sweep_is_algorithm_2_of_blei_et_al(x64, locs):
    x = clusters(80, locs)
    model = gaussian_mixture.model(3, x.shape[1], prior_scale=5.0)
    start = mixtures.init(jax.random.key(0), model, jnp.asarray(x))
    loc = start["loc"]
    m, s2, elbos = blei_by_hand(x, np.asarray(loc["shift"]), np.asarray(loc["precision"]), 5.0, 6)
    state = cavi.init(start)
    seen = []
    sweep = jax.jit(lambda state: cavi.step(model, jnp.asarray(x), state))
    for _ in range(6):
        state = sweep(state)
        seen.append(float(state.elbo))
    np.testing.assert_allclose(seen, elbos, rtol=1e-10)
    q = factors.as_normal(state.natural["loc"])
    np.testing.assert_allclose(q.mean, m, rtol=1e-9)
    np.testing.assert_allclose(q.variance, s2, rtol=1e-9)
    assert engine.elbo(model, state.natural, jnp.asarray(x)) >= state.elbo


@pytest.mark.integration
def test_with_one_component_the_elbo_is_the_evidence(x64):
    x = clusters(20, [[1.0]])
    fit = gaussian_mixture.fit(
        jax.random.key(0), x, num_components=1, prior_scale=3.0, noise_scale=0.5, num_starts=1
    )
    marginal = dist.MultivariateNormal(jnp.zeros(20), 9.0 * jnp.ones((20, 20)) + 0.25 * jnp.eye(20))
    np.testing.assert_allclose(fit.elbo, marginal.log_prob(jnp.asarray(x[:, 0])), rtol=1e-10)
    fit = ngm.fit(
        jax.random.key(0), x, num_components=1, strength=0.3, shape=2.0, rate=1.5, num_starts=1
    )
    np.testing.assert_allclose(
        fit.elbo, normal_gamma_evidence(np.ones((20, 1)), x[:, 0], 0.3, 2.0, 1.5), rtol=1e-10
    )


@pytest.mark.integration
def test_a_mixture_is_found_from_several_starts():
    locs = [[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]]
    x = clusters(300, locs, seed=1)
    fit = gaussian_mixture.fit(jax.random.key(0), x, num_components=3, concentration=1.0)
    found = np.asarray(factors.as_normal(fit.natural["loc"]).mean)
    assert fit.converged
    assert fit.starts.shape == (8,)
    assert fit.elbo == fit.starts.max()
    np.testing.assert_allclose(found[np.lexsort(found.T[::-1])], sorted(locs), atol=0.3)
    phi = mixtures.responsibilities(fit.model, fit.natural, x)
    np.testing.assert_allclose(phi.sum(1), 1, rtol=1e-5)


@pytest.mark.integration
def test_scales_are_found_and_a_component_too_many_empties():
    x = np.concatenate(
        [clusters(200, [[-4.0, 0.0]], 0.3), clusters(200, [[3.0, 1.0]], 2.0, seed=1)]
    )
    x -= x.mean(0)
    fit = ngm.fit(jax.random.key(0), x, num_components=4, concentration=0.01, rate=0.1)
    weights = np.sort(factors.as_dirichlet(fit.natural["weights"]).mean)
    np.testing.assert_allclose(weights, [0, 0, 0.5, 0.5], atol=0.03)
    c = fit.natural["components"]
    scale = jnp.sqrt((c["minus"] - 0.5 * c["shift"] ** 2 / c["precision"]) / (c["log"] + 0.5))
    used = np.argsort(np.asarray(factors.as_dirichlet(fit.natural["weights"]).mean))[-2:]
    np.testing.assert_allclose(np.sort(np.asarray(scale)[used, 0]), [0.3, 2.0], rtol=0.15)


MODELS = {
    "gaussian_mixture": lambda: (
        gaussian_mixture.model(3, 2, concentration=1.0),
        jnp.asarray(clusters(100, [[-2.0, 0], [2.0, 1]])),
    ),
    "normal_gamma_mixture": lambda: (
        ngm.model(3, 2),
        jnp.asarray(clusters(100, [[-2.0, 0.0], [2.0, 1.0]])),
    ),
    "linear_regression": lambda: (
        linear_regression.model(4),
        tuple(map(jnp.asarray, regression())),
    ),
    "linear_regression_fixed": lambda: (
        linear_regression.model(4, precision=0.5),
        tuple(map(jnp.asarray, regression())),
    ),
    "logistic_regression": lambda: (
        logistic_regression.model(2),
        tuple(map(jnp.asarray, labels())),
    ),
    "logistic_regression_ard": lambda: (
        logistic_regression.model(2, precision=None),
        tuple(map(jnp.asarray, labels())),
    ),
}


def some(*quick):
    """All models, those not named as slow tests."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in MODELS]


def start_of(model, x):
    return (
        jax.jit(lambda key: mixtures.init(key, model, x))(jax.random.key(3))
        if model.scores is not None
        else model.start()
    )


@pytest.mark.integration
@pytest.mark.parametrize("name", some("gaussian_mixture", "linear_regression"))
def test_no_sweep_lowers_the_elbo_and_the_end_is_stationary(x64, name):
    model, x = MODELS[name]()
    state, history, converged = jax.jit(
        lambda s: cavi.run(model, x, s, num_sweeps=3000, tolerance=1e-14)
    )(start_of(model, x))
    rises = np.diff(np.asarray(history)[: int(state.num_sweeps)])
    assert converged
    assert len(rises) >= 2
    assert np.all(rises > -1e-9 * abs(float(state.elbo)))
    slope = jax.jit(jax.grad(lambda natural: engine.elbo(model, natural, x)))
    for end, start in zip(
        jax.tree.leaves(slope(state.natural)),
        jax.tree.leaves(slope(start_of(model, x))),
        strict=True,
    ):
        assert np.abs(end).max() < 1e-3 * (np.abs(start).max() + 1e-3)


@pytest.mark.parametrize("name", some("gaussian_mixture"))
def test_the_minibatch_optimum_is_unbiased(x64, name):
    model, x = MODELS[name]()
    natural = start_of(model, x)
    whole = jax.jit(lambda natural: engine.optimum(model, natural, x))(natural)
    num_data = jax.tree.leaves(x)[0].shape[0]
    # batches that share out the data: an exact mean
    parts = jax.tree.map(lambda leaf: leaf.reshape(10, -1, *leaf.shape[1:]), x)
    each = jax.jit(jax.vmap(lambda part: engine.optimum(model, natural, part, 10.0)))(parts)
    assert num_data % 10 == 0
    for a, b in zip(jax.tree.leaves(each), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a.mean(0), b, rtol=1e-9, atol=1e-9)
    assert any(np.asarray(leaf).std(0).max() > 1e-3 for leaf in jax.tree.leaves(each))


def normal_gamma_evidence(x, y, precision, a, b):
    """log p(y) of y ~ N(Xw, 1/tau), w ~ N(0, 1/(tau precision)), tau ~ Gamma(a, b), closed form
    (Bishop 2006, eq. 3.118).
    """
    num_data, num_features = x.shape
    p = x.T @ x + precision * np.eye(num_features)
    m = np.linalg.solve(p, x.T @ y)
    b_new = b + 0.5 * (y @ y - m @ p @ m)
    a_new = a + 0.5 * num_data
    log_det = 0.5 * num_features * np.log(precision) - 0.5 * np.linalg.slogdet(p)[1]
    return (
        gammaln(a_new)
        - gammaln(a)
        + a * np.log(b)
        - a_new * np.log(b_new)
        + log_det
        - 0.5 * num_data * np.log(2 * np.pi)
    )


@pytest.mark.integration
def test_linear_regression_is_just_below_its_evidence(x64):
    x, y = regression()
    fit = linear_regression.fit(x, y, precision=0.5, shape=2.0, rate=1.0, tolerance=1e-13)
    evidence = normal_gamma_evidence(x, y, 0.5, 2.0, 1.0)
    assert evidence - 0.2 < fit.elbo < evidence  # what q(w) q(tau) loses: D / (2 N) or so
    p = x.T @ x + 0.5 * np.eye(4)
    np.testing.assert_allclose(
        factors.as_vector_normal(fit.natural["w"]).mean, np.linalg.solve(p, x.T @ y), rtol=1e-8
    )
    # q(tau) of mean field: shape a + (N + D) / 2, and at its fixed point the exact posterior's mean
    # but for D / 2
    tau = factors.as_gamma(fit.natural["tau"])
    np.testing.assert_allclose(tau.concentration, 2.0 + 32.0, rtol=1e-10)


@pytest.mark.slow
def test_relevance_is_determined():
    x, y = regression(400, seed=2)
    fit = linear_regression.fit(x, y)
    alpha = factors.as_gamma(fit.natural["alpha"]).mean
    assert alpha[3] > 10 * alpha[:3].max()
    assert abs(factors.as_vector_normal(fit.natural["w"]).mean[3]) < 0.03


def grid_posterior(x, y, precision):
    """log p(y), mean and covariance of w [2] by a sum over a grid."""
    side = np.linspace(-8, 8, 801)
    w = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    logits = w @ x.T
    log_p = (
        (y * logits - np.logaddexp(0, logits)).sum(1)
        - 0.5 * precision * (w**2).sum(1)
        + np.log(precision / (2 * np.pi))
    )
    log_z = logsumexp(log_p)
    weights = np.exp(log_p - log_z)
    mean = weights @ w
    return (
        log_z + 2 * np.log(side[1] - side[0]),
        mean,
        (w - mean).T @ (weights[:, None] * (w - mean)),
    )


@pytest.mark.integration
def test_logistic_regression_is_a_lower_bound_near_the_posterior(x64):
    x, y = labels()
    evidence, mean, covariance = grid_posterior(x, y, 1.0)
    fit = logistic_regression.fit(x, y, precision=1.0, tolerance=1e-12)
    q = factors.as_vector_normal(fit.natural["w"])
    assert evidence - 0.5 < fit.elbo < evidence
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((q.mean - mean) / sd, 0, atol=0.15)
    shrunk = np.sqrt(np.diag(q.covariance_matrix)) / sd
    assert np.all((shrunk > 0.7) & (shrunk < 1))  # the bound is known to be too sure of itself


@pytest.mark.integration
def test_an_update_is_bishops(x64):
    x, y = labels()
    model = logistic_regression.model(2, precision=2.0)
    state = cavi.init(model.start())
    sweep = jax.jit(lambda state: cavi.step(model, (jnp.asarray(x), jnp.asarray(y)), state))
    for _ in range(3):
        q = factors.as_vector_normal(state.natural["w"])
        # Bishop 2006, eq. 10.163
        xi = np.sqrt(np.einsum("nd,de,ne->n", x, q.covariance_matrix + np.outer(q.mean, q.mean), x))
        weight = np.tanh(xi / 2) / (4 * xi)
        state = sweep(state)
        # 10.157
        np.testing.assert_allclose(
            state.natural["w"]["precision"], 2 * np.eye(2) + 2 * (x.T * weight) @ x, rtol=1e-9
        )
        np.testing.assert_allclose(state.natural["w"]["shift"], x.T @ (y - 0.5), rtol=1e-9)


@pytest.mark.integration
def test_a_row_of_zeros_does_no_harm():
    x, y = labels()
    x[0] = 0.0
    assert np.isfinite(logistic_regression.fit(x, y).elbo)


@pytest.mark.integration
def test_svi_with_all_data_and_a_full_step_is_coordinate_ascent(x64):
    model, x = MODELS["gaussian_mixture"]()
    start = start_of(model, x)
    stepped = jax.jit(
        lambda key, s: svi.step(key, model, x, svi.init(s), batch_size=100, delay=1.0)
    )(jax.random.key(0), start)
    swept = jax.jit(lambda s: cavi.step(model, x, cavi.init(s)))(start)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), stepped.natural, swept.natural
    )


@pytest.mark.integration
def test_svi_reaches_the_elbo_of_the_batch():
    x = jnp.asarray(clusters(2000, [[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]], seed=4), jnp.float32)
    model = gaussian_mixture.model(3, 2, concentration=1.0)
    start = jax.jit(lambda key: mixtures.init(key, model, x[:100]))(jax.random.key(0))
    batch, _, _ = jax.jit(lambda s: cavi.run(model, x, s))(start)
    state = svi.fit(jax.random.key(1), model, x, start, batch_size=50, num_steps=600)
    elbo = jax.jit(lambda natural: engine.elbo(model, natural, x))
    before = float(elbo(start))
    after = float(elbo(state.natural))
    assert after - before > 10
    assert abs(after - float(batch.elbo)) < 5e-4 * abs(float(batch.elbo))


@pytest.mark.slow
def test_svi_runs_a_regression_too():
    x, y = (jnp.asarray(leaf, jnp.float32) for leaf in labels(500, seed=5))
    model = logistic_regression.model(2)
    whole = logistic_regression.fit(x, y)
    state = svi.fit(jax.random.key(1), model, (x, y), model.start(), batch_size=50, num_steps=500)
    assert float(whole.elbo) - float(engine.elbo(model, state.natural, (x, y))) < 0.2


@pytest.mark.integration
def test_init_and_step_live_under_jit_and_vmap():
    model, x = MODELS["gaussian_mixture"]()
    starts = jax.jit(jax.vmap(lambda key: mixtures.init(key, model, x)))(
        jax.random.split(jax.random.key(0), 3)
    )
    states = jax.jit(jax.vmap(lambda natural: cavi.step(model, x, cavi.init(natural))))(starts)
    assert states.elbo.shape == (3,)
    assert np.all(np.isfinite(states.elbo))


def test_wrong_shapes_and_numbers_are_refused():
    with pytest.raises(ValueError, match=r"\[N\] or \[N, D\]"):
        gaussian_mixture.fit(jax.random.key(0), np.zeros((2, 2, 2)), num_components=2)
    with pytest.raises(ValueError, match=r"x \[N, D\] and y \[N\]"):
        vi.conjugate.linear_regression.fit(np.zeros((3, 2)), np.zeros(4))
    model, x = MODELS["gaussian_mixture"]()
    with pytest.raises(ValueError, match="batch_size"):
        svi.fit(jax.random.key(0), model, x, model.start(), batch_size=0, num_steps=1)
    with pytest.raises(ValueError, match="forgetting"):
        svi.fit(
            jax.random.key(0), model, x, model.start(), batch_size=10, num_steps=1, forgetting=0.3
        )
