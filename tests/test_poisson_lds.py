"""Linear dynamical systems by conjugate-computation variational inference: a Gaussian likelihood
against the dense normal, others against quadrature and importance samples; masks; learning.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import keys

import vi_jax as vi
from vi_jax import chains
from vi_jax.models import likelihoods
from vi_jax.models.poisson_lds import chain_of
from vi_jax.models.table_vae import Column

N = 4
D = 2


def model_of(kind="gaussian", likelihood=None, **options):
    options = {"num_latents": D, "num_passes": 1 if kind == "gaussian" else 8, **options}
    return vi.models.poisson_lds([Column(kind)] * N, likelihood=likelihood, **options)


def params_of(model, seed=0, dtype=jnp.float64):
    """Somewhere away from the start."""
    rng = np.random.default_rng(seed)
    params = model.init(jax.random.key(0))
    moved = jax.tree.map(lambda leaf: leaf + 0.2 * rng.standard_normal(leaf.shape), params)
    moved["loadings"] += jnp.asarray(rng.standard_normal((N, D)))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), moved)


def trials(num, num_steps, kind="gaussian", dtype=jnp.float64, seed=1):
    """Trials of unequal length with holes."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((num, num_steps, N))
    if kind != "gaussian":
        values = rng.poisson(0.7, values.shape)
    if kind == "bernoulli":
        values = np.minimum(values, 1)
    observed = rng.random(values.shape) < 0.8
    lengths = num_steps - np.arange(num) % 3
    observed &= (np.arange(num_steps) < lengths[:, None])[..., None]
    observed[:, 0, 0] = True
    return {"values": jnp.asarray(values * observed, dtype), "observed": jnp.asarray(observed)}


def one_of(x, row=0):
    return jax.tree.map(lambda leaf: leaf[row], x)


def elbo_of(model):
    """(params, trials) -> ELBO of each."""

    def one(params, x):
        terms = model.terms(jax.random.key(0), params, x)
        return terms.log_lik - terms.kl["z"]

    return jax.vmap(one, (None, 0))


def dense_evidence(params, x):
    """log p(x) of one trial of a Gaussian likelihood, by the normal of all that is observed."""
    chain = chain_of(params)
    num_steps = x["values"].shape[0]
    mean = [chain.mean]
    cov = [chain.cov]
    for _ in range(num_steps - 1):
        mean.append(chain.transition @ mean[-1])
        cov.append(chain.transition @ cov[-1] @ chain.transition.T + chain.noise)
    blocks = [[None] * num_steps for _ in range(num_steps)]
    for s in range(num_steps):
        across = cov[s]
        for t in range(s, num_steps):
            blocks[t][s] = across
            blocks[s][t] = across.T
            across = chain.transition @ across
    seen = jnp.kron(jnp.eye(num_steps), params["loadings"])
    total = seen @ jnp.block(blocks) @ seen.T
    total += jnp.kron(jnp.eye(num_steps), jnp.diag(jnp.exp(2 * params["likelihood"]["log_sigma"])))
    middle = seen @ jnp.concatenate(mean) + jnp.tile(params["offset"], num_steps)
    rows = np.flatnonzero(np.asarray(x["observed"]).ravel())
    return jax.scipy.stats.multivariate_normal.logpdf(
        x["values"].ravel()[rows], middle[rows], total[np.ix_(rows, rows)]
    )


@pytest.mark.parametrize(
    "num",
    [
        pytest.param(1, marks=pytest.mark.integration),
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(64, marks=pytest.mark.slow),
    ],
)
def test_a_gaussian_likelihood_is_exact_after_one_pass(num):
    """Log evidence and its gradient, with holes and unequal lengths."""
    with jax.enable_x64(True):
        model = model_of()
        params = params_of(model)
        x = trials(num, 5)

        def dense(params):
            return jnp.stack([dense_evidence(params, one_of(x, i)) for i in range(num)])

        ours = jax.jit(elbo_of(model))(params, x)
        np.testing.assert_allclose(ours, dense(params), rtol=1e-10)
        if num == 1:
            return
        single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, x))
        single[1]["observed"] = x["observed"]
        rough = jax.jit(elbo_of(model))(*single)
        assert rough.dtype == jnp.float32
        np.testing.assert_allclose(rough, ours, rtol=1e-5)
        if num == 2:
            gradient = jax.jit(jax.grad(lambda p: elbo_of(model)(p, x).sum()))(params)
            expected = jax.grad(lambda p: dense(p).sum())(params)
            close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
            jax.tree.map(close, gradient, expected)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["poisson", pytest.param("gaussian", marks=pytest.mark.slow)])
def test_garbage_behind_the_mask_changes_no_bit(kind):
    model = model_of(kind)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0)))
    x = one_of(trials(1, 6, kind, jnp.float32))
    other = {**x, "values": jnp.where(x["observed"], x["values"], jnp.nan)}

    @jax.jit
    def everything(params, x):
        q = model.densities.guide(params, x)
        gradient = jax.grad(lambda p: model.terms(jax.random.key(0), p, x).log_lik)(params)
        return model.terms(jax.random.key(0), params, x), q.mean, q.variance, gradient

    first = everything(params, x)
    jax.tree.map(np.testing.assert_array_equal, first, everything(params, other))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    # more padding: nothing beyond rounding
    longer = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 3), (0, 0))), x)
    again = everything(params, longer)
    np.testing.assert_allclose(again[0].log_lik, first[0].log_lik, rtol=1e-5)
    np.testing.assert_allclose(again[0].kl["z"], first[0].kl["z"], rtol=1e-4)


LIKELIHOODS = {
    "poisson": likelihoods.poisson,
    "softplus": functools.partial(likelihoods.poisson, link=jax.nn.softplus),
    "negative_binomial": likelihoods.negative_binomial,
    "bernoulli": likelihoods.bernoulli,
}


@pytest.mark.cases(rest="slow", integration=["poisson"])
@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_the_fixed_point_is_the_optimum(name):
    """No other Gaussian chain near it has a higher ELBO: the gradient of the ELBO in h and J of the
    sites is 0. And importance samples of it find log p(x) a little above.
    """
    with jax.enable_x64(True):
        model = model_of("poisson", LIKELIHOODS[name](), num_passes=25)
        params = params_of(model)
        x = one_of(trials(1, 6, "bernoulli" if name == "bernoulli" else "poisson"))
        q = model.densities.guide(params, x)
        chain = chain_of(params)
        likelihood = LIKELIHOODS[name]()

        def elbo(sites):
            q = chains.gaussian_chain(chain, sites)
            emission = chains.Emission(params["loadings"], params["offset"])
            mean, variance = chains.predictors(emission, q.moments)
            log_lik = chains.expected_by_quadrature(
                lambda eta: likelihood.make(params["likelihood"], eta[..., None]).log_prob(
                    x["values"]
                )
            )(mean, variance)
            kl = vi.kl_divergence(q, chains.gaussian_chain(chain, num_steps=6))
            return jnp.where(x["observed"], log_lik, 0.0).sum() - kl

        value, gradient = jax.jit(jax.value_and_grad(elbo))(q.posterior.sites)
        ours = elbo_of(model)(params, jax.tree.map(lambda leaf: leaf[None], x))[0]
        np.testing.assert_allclose(value, ours, rtol=1e-8)
        of_symmetric = gradient.J + jnp.swapaxes(gradient.J, -1, -2)
        assert max(float(jnp.abs(leaf).max()) for leaf in (gradient.h, of_symmetric)) < 1e-7

        def weight(key):
            z = q.sample(key)
            return vi.losses.log_joint(model, params, x)(z) - q.log_prob(z)

        log_w = jax.jit(jax.vmap(weight))(keys(0, 2_000))
        gap = float(vi.bounds.iwae(log_w) - ours)
        assert -1e-3 < gap < 0.1
        if name == "poisson":  # the tails of others are wider than a Gaussian's, far out
            assert vi.diagnostics.psis(log_w).k_hat < 0.7


@pytest.mark.integration
def test_expectations_by_quadrature_and_in_closed_form():
    """Of a Poisson: value, slope and curvature, and those of a polynomial by hand."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        mean = jnp.asarray(rng.standard_normal(9))
        variance = jnp.asarray(rng.random(9))
        y = jnp.asarray(rng.poisson(1.0, 9), jnp.float64)
        poisson = likelihoods.poisson()
        closed = chains.by_closed_form(functools.partial(poisson.expected, {}, y))(mean, variance)
        log_lik = lambda eta: poisson.make({}, eta[..., None]).log_prob(y)  # noqa: E731
        again = chains.by_quadrature(log_lik)(mean, variance)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), closed, again)
        rate = np.exp(mean + 0.5 * variance)
        np.testing.assert_allclose(closed.slope, y - rate, rtol=1e-12)
        np.testing.assert_allclose(closed.curvature, rate, rtol=1e-12)


@pytest.mark.cases(rest=None, slow=["2", "64"])
@pytest.mark.integration
@pytest.mark.parametrize("num", [1, 2, 64])
def test_em_never_descends(num):
    """A Gaussian likelihood, 200 iterations in float64; its ELBO is log p(x)."""
    with jax.enable_x64(True):
        model = model_of(forget=1.0)
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), model.init(keys(0, 1)[0])
        )
        x = trials(num, 12)
        fit = vi.conjugate.em(
            jax.random.key(0), model, x, num_iterations=200, params=params, batch_size=32
        )
        assert np.isfinite(fit.elbo).all()
        assert np.diff(fit.elbo).min() > -1e-8 * abs(fit.elbo[-1])
        assert fit.elbo[-1] > fit.elbo[0] + 1.0


@pytest.mark.parametrize(
    ("kind", "num_passes"),
    [
        pytest.param("gaussian", 1, marks=pytest.mark.integration),
        pytest.param("poisson", 12, marks=pytest.mark.slow),
    ],
)
def test_em_and_gradients_agree(kind, num_passes, x64):
    """Where expectation-maximisation has come to rest the gradient is 0; of a Poisson, too."""
    model = model_of(kind, forget=1.0, num_passes=num_passes)
    params = in_float64(model.init(jax.random.key(0)))
    x = simulated(kind)
    fit = vi.conjugate.em(
        jax.random.key(0), model, x, num_iterations=600, params=params, batch_size=32
    )
    assert abs(fit.elbo[-1] - fit.elbo[-2]) < 1e-3
    gradient = jax.jit(jax.grad(lambda p: elbo_of(model)(p, x).sum()))
    before = gradient(params)
    after = gradient(fit.params)
    for name in ("dynamics", "loadings", "offset"):
        sizes = [
            max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree[name]))
            for tree in (before, after)
        ]
        assert sizes[1] < 0.02 * sizes[0]


@pytest.mark.integration
def test_an_e_step_serves_its_update_and_the_loss():
    """The loss is that at the parameters before the update, which is that of its E-step; no
    gradient is left to what the update moves.
    """
    x = trials(3, 5, "poisson", jnp.float32)
    model = model_of("poisson", forget=0.5, num_passes=4)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0)))
    loss = vi.losses.negative_elbo(model)

    @jax.jit
    def both(params):
        key = jax.random.key(1)
        return jax.value_and_grad(loss, has_aux=True)(params, key, x, jnp.int32(0))

    (value, info), gradient = both(params)
    elbos = jax.jit(elbo_of(model))(params, x)
    np.testing.assert_allclose(value, -elbos.mean(), rtol=1e-6)
    stats = jax.vmap(lambda x: model.terms(jax.random.key(0), params, x).stats)(x)
    mean = jax.tree.map(lambda leaf: leaf.mean(0), stats)
    expected = model.update(jax.random.key(0), params, mean)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, info.params, expected)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
    better = jax.jit(elbo_of(model))(info.params, x)
    assert better.mean() > elbos.mean()


@pytest.mark.integration
def test_log_weights_are_those_of_the_densities():
    """The prior cancels; of an exact posterior each is log p(x), whatever is drawn."""
    with jax.enable_x64(True):
        for kind in ("poisson", "gaussian"):
            model = model_of(kind)
            params = params_of(model)
            x = one_of(trials(1, 6, kind))
            of = model.densities
            q = of.guide(params, x)
            z = q.sample(jax.random.key(3), (5,))
            ours = jax.vmap(functools.partial(of.log_weight, params, x, q))(z)
            log_p = jax.vmap(vi.losses.log_joint(model, params, x))(z)
            np.testing.assert_allclose(ours, log_p - q.log_prob(z), rtol=1e-9)
        np.testing.assert_allclose(ours, dense_evidence(params, x), rtol=1e-9)


def in_float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def simulated(kind, num=20, num_steps=30):
    """Trials of a model at known parameters."""
    model = model_of(kind)
    params = model.init(jax.random.key(1))
    params["loadings"] = 0.5 * jax.random.normal(jax.random.key(2), (N, D))
    x = {"values": jnp.zeros((num_steps, N)), "observed": jnp.ones((num_steps, N), bool)}

    def one(key):
        key_z, key_x = jax.random.split(key)
        return model.generate(key_z, params, x).sample(key_x)

    made = jax.vmap(one)(keys(3, num))
    return {**made, "values": made["values"].astype(jnp.float64)}


def test_what_cannot_be_is_refused():
    for message, make in {
        "num_latents and num_passes": lambda: model_of(num_latents=0),
        "forget above 0": lambda: model_of(forget=0.0),
        "columns of one kind": lambda: vi.models.poisson_lds(
            [Column("poisson"), Column("gaussian")], num_latents=1
        ),
        "one linear predictor": lambda: model_of("poisson", likelihoods.zero_inflated_poisson()),
        "learns in closed form": lambda: vi.conjugate.em(
            jax.random.key(0), model_of(), trials(1, 3, dtype=jnp.float32), num_iterations=1
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            make()
