"""Targets: densities in free coordinates against NumPyro's own, and errors that name the site."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer.util import initialize_model

import vi_jax as vi
from vi_jax.targets import TargetError


def many_kinds(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("chol", dist.LKJCholesky(3, 1.0))
    with numpyro.plate("groups", 4):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
    numpyro.deterministic("twice", 2 * theta)
    for i in range(3):
        numpyro.sample(f"a{i}", dist.Normal(float(i), 1.0 + i))
        numpyro.sample(f"b{i}", dist.Gamma(2.0, mu**2 + 1.0))
    numpyro.factor("extra", -0.1 * mu**2)
    numpyro.sample("y", dist.Normal(theta, 1.0).to_event(1), obs=y)


@pytest.mark.integration
def test_a_numpyro_model_has_numpyros_density_and_gradient():
    y = jnp.array([1.0, -1.0, 0.5, 2.0])
    target = vi.targets.from_numpyro(many_kinds, y)
    with jax.debug_key_reuse(False):  # NumPyro's
        info = initialize_model(jax.random.key(0), many_kinds, model_args=(y,))
    for seed in (0,):
        u = jax.random.normal(jax.random.key(seed), (target.size,))
        z = jax.jit(target.constrain)(u)
        np.testing.assert_allclose(z["twice"], 2 * z["theta"])
        supports = {
            "tau": constraints.positive,
            "p": constraints.simplex,
            "chol": constraints.corr_cholesky,
        }
        supports |= {f"b{i}": constraints.positive for i in range(3)}
        free = {
            name: dist.biject_to(supports.get(name, constraints.real)).inv(z[name])
            for name in info.param_info.z
        }
        value, slope = jax.jit(jax.value_and_grad(target.log_density))(u)
        potential, theirs = jax.jit(jax.value_and_grad(info.potential_fn))(free)
        np.testing.assert_allclose(value, -potential, rtol=1e-4)
        np.testing.assert_allclose(jax.jit(target.unconstrain)(z), u, atol=1e-4)
        rows = dict(zip(target.names, slope, strict=True))
        np.testing.assert_allclose(rows["mu"], -theirs["mu"], rtol=1e-3)
        np.testing.assert_allclose(rows["b1"], -theirs["b1"], rtol=1e-3)
        np.testing.assert_allclose(rows["theta[2]"], -theirs["theta"][2], rtol=1e-3, atol=1e-4)


@pytest.mark.integration
def test_a_support_that_depends_on_a_latent():
    def model():
        width = numpyro.sample("width", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", dist.Uniform(0.0, width))

    target = vi.targets.from_numpyro(model)
    z = target.constrain(jnp.array([0.3, -0.5]))
    np.testing.assert_allclose(z["x"], np.exp(0.3) * jax.nn.sigmoid(-0.5), rtol=1e-5)
    share = jax.nn.sigmoid(-0.5)
    # the widths of density and map cancel
    expected = dist.Normal(0.0, 1.0).log_prob(0.3) + jnp.log(share * (1 - share))
    np.testing.assert_allclose(target.log_density(jnp.array([0.3, -0.5])), expected, rtol=1e-5)


@pytest.mark.integration
def test_an_improper_prior_and_a_plate_without_a_subsample():
    def model():
        b = numpyro.sample("b", dist.ImproperUniform(constraints.real, (), (2,)))
        with numpyro.plate("rows", 3):
            numpyro.sample("y", dist.Normal(b.sum(), 1.0), obs=jnp.arange(3.0))

    target = vi.targets.from_numpyro(model)
    assert target.size == 2
    assert target.sampled is None
    expected = dist.Normal(0.3, 1.0).log_prob(jnp.arange(3.0)).sum()
    np.testing.assert_allclose(target.log_density(jnp.array([0.1, 0.2])), expected, rtol=1e-5)


@pytest.mark.integration
def test_a_function_of_a_pytree_with_constraints():
    example = {"rate": jnp.ones(2), "w": jnp.zeros((2, 2))}
    target = vi.targets.from_log_density(
        lambda z: (
            dist.Gamma(2.0, 3.0).log_prob(z["rate"]).sum()
            + dist.Normal(1.0, 2.0).log_prob(z["w"]).sum()
        ),
        example,
        {"rate": constraints.positive, "w": None},
    )
    u = jax.random.normal(jax.random.key(0), (6,))
    z = target.constrain(u)
    assert jax.tree.map(jnp.shape, z) == {"rate": (2,), "w": (2, 2)}
    np.testing.assert_allclose(target.unconstrain(z), u, atol=1e-5)
    rows = dict(zip(target.names, u, strict=True))
    np.testing.assert_allclose(z["rate"], np.exp([rows["rate[0]"], rows["rate[1]"]]), rtol=1e-5)
    expected = (
        dist.Gamma(2.0, 3.0).log_prob(z["rate"]).sum()
        + jnp.log(z["rate"]).sum()
        + dist.Normal(1.0, 2.0).log_prob(z["w"]).sum()
    )
    np.testing.assert_allclose(target.log_density(u), expected, rtol=1e-5)


def logistic(num_data=40):
    x = jax.random.normal(jax.random.key(1), (num_data, 2))
    y = jax.random.bernoulli(jax.random.key(2), 0.5, (num_data,)).astype(float)

    def log_lik(w, rows):
        x, y = rows
        return vi.distributions.Bernoulli(x @ w).log_prob(y)

    return lambda w: dist.Normal(0.0, 1.0).log_prob(w).sum(), log_lik, (x, y)


@pytest.mark.integration
def test_minibatches_are_unbiased():
    log_prior, log_lik, data = logistic()
    target = vi.targets.from_rows(log_prior, log_lik, data, 2, batch_size=8)
    u = jnp.array([0.3, -0.2])
    values = jax.vmap(lambda key: target.sampled(key)(u))(jax.random.split(jax.random.key(0), 4000))
    off = (values.mean() - target.log_density(u)) / (values.std() / 4000**0.5)
    assert abs(off) < 5
    assert values.std() > 0.1


@pytest.mark.integration
def test_a_plate_with_a_subsample_is_a_minibatch():
    x = jax.random.normal(jax.random.key(1), (30,)) + 1.0

    def model(x):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 30, subsample_size=5):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=numpyro.subsample(x, 0))

    target = vi.targets.from_numpyro(model, x)
    u = jnp.array([0.3])
    values = jax.vmap(lambda key: target.sampled(key)(u))(jax.random.split(jax.random.key(0), 4000))
    whole = dist.Normal(0.0, 1.0).log_prob(0.3) + dist.Normal(0.3, 1.0).log_prob(x).sum()
    np.testing.assert_allclose(target.log_density(u), whole, rtol=1e-5)
    assert abs(values.mean() - whole) < 5 * values.std() / 4000**0.5


def test_a_plate_that_cannot_hold_all_rows_is_refused():
    def model(batch):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 30, subsample_size=5):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=batch)

    with pytest.raises(TargetError, match="all rows of its plate 'rows'"):
        vi.targets.from_numpyro(model, jnp.ones(5))

    def one_row(batch):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 30, subsample_size=1):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=batch)

    with pytest.raises(TargetError, match="'x' has one row of data, 30 were expected"):
        vi.targets.from_numpyro(one_row, jnp.ones(1))


def discrete():
    numpyro.sample("cluster", dist.Categorical(jnp.ones(3) / 3))
    numpyro.sample("x", dist.Normal())


def test_errors_name_the_site():
    with pytest.raises(TargetError, match="'cluster' is discrete"):
        vi.targets.from_numpyro(discrete)
    with pytest.raises(TargetError, match="no latent site"):
        vi.targets.from_numpyro(lambda: numpyro.sample("x", dist.Normal(), obs=0.0))
    with pytest.raises(TargetError, match=r"'w' has shape \(0,\)"):
        vi.targets.from_numpyro(
            lambda: numpyro.sample("w", dist.Normal(jnp.zeros(0), 1.0).to_event(1))
        )
    with pytest.raises(TargetError, match="at least one latent"):
        vi.targets.from_log_density(lambda z: z.sum(), 0)
    with pytest.raises(TargetError, match=r"one floating-point number.*shape \(3,\)"):
        vi.targets.from_log_density(lambda z: -(z**2), 3)
    with pytest.raises(TargetError, match="'n' has dtype int"):
        vi.targets.from_log_density(lambda z: -(z["n"] ** 2), {"n": jnp.array(1)})
    with pytest.raises(TargetError, match="none of its constraint"):
        vi.targets.from_log_density(
            lambda z: z["p"].sum(), {"p": jnp.ones(())}, {"p": constraints.simplex}
        )
    log_prior, log_lik, data = logistic()
    with pytest.raises(TargetError, match="one number a row"):
        vi.targets.from_rows(
            log_prior, lambda w, rows: log_lik(w, rows).sum(), data, 2, batch_size=8
        )
    with pytest.raises(TargetError, match=r"1\.\.40"):
        vi.targets.from_rows(log_prior, log_lik, data, 2, batch_size=41)


def misshapen(num, subsample_size=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 30, subsample_size=subsample_size):
        numpyro.sample("x", dist.Normal(mu, 1.0), obs=jnp.ones(num))


def test_observations_of_a_wrong_shape_are_named():
    words = r"site 'x' cannot be evaluated: its value has shape \(7,\), its distribution \(30,\)"
    with pytest.raises(TargetError, match=words):
        vi.fit(jax.random.key(0), vi.targets.from_numpyro(misshapen, 7))
    with pytest.raises(
        TargetError, match=r"^the observed site 'x'.*\(7,\), its distribution \(5,\)"
    ):
        vi.targets.from_numpyro(misshapen, 7, 5)


def test_a_plate_of_no_rows_is_named_and_a_users_own_assertion_is_theirs():
    def model(size):
        numpyro.sample("mu", dist.Normal())
        with numpyro.plate("p", size):
            assert size == 0, "mine"

    with pytest.raises(TargetError, match="'p' has size 0: it expects 1 row"):
        vi.targets.from_numpyro(model, 0)
    with pytest.raises(AssertionError, match="mine"):
        vi.targets.from_numpyro(model, 1)


LEAVES_JAX = {
    "float": lambda z: -jnp.sum(z**2) * float(z[0]),
    "array": lambda z: -jnp.sum(np.array(z) ** 2),
    "if": lambda z: -jnp.sum(z**2) if z[0] > 0 else z[0],
    "index": lambda z: -jnp.sum(z**2) * [1.0, 2.0][z[0].astype(int)],
}


@pytest.mark.parametrize("density", LEAVES_JAX.values(), ids=LEAVES_JAX)
def test_a_density_that_leaves_jax_is_told_to_stay_and_where(density):
    words = r"log density needs the value of a traced .*test_targets.py, line \d+ .*in jax.numpy"
    with pytest.raises(TargetError, match=words):
        vi.targets.from_log_density(density, 2)
    with pytest.raises(TargetError, match=words):
        vi.targets.from_local_rows(
            density, lambda t, z, rows: -z[:, 0], jnp.ones(4), 2, 1, batch_size=2
        )
    own = vi.targets.from_log_density(lambda z: -z @ z, 2)._replace(log_density=density)
    with pytest.raises(TargetError, match=words):
        vi.fit(jax.random.key(0), own)

    def model():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.factor("f", density(z))

    with pytest.raises(TargetError, match=words.replace("log density", "model")):
        vi.targets.from_numpyro(model)


def test_the_program_does_not_grow_with_scalar_sites():
    def model(num):
        total = 0.0
        for i in range(num):
            total = total + numpyro.sample(
                f"s{i}", dist.HalfNormal(1.0) if i % 2 else dist.Normal(0.0, 1.0)
            )
        numpyro.sample("y", dist.Normal(total, 1.0), obs=1.0)

    def equations(num):
        target = vi.targets.from_numpyro(model, num)
        return len(jax.make_jaxpr(jax.grad(target.log_density))(jnp.zeros(num)).eqns)

    # splitting, the sum, their transposes; NumPyro's own has 40 a site
    assert equations(60) - equations(30) < 30 * 10


@pytest.mark.integration
def test_a_control_variate_removes_the_noise_and_leaves_the_mean():
    log_prior, log_lik, data = logistic(12)
    target = vi.targets.from_rows(log_prior, log_lik, data, 2, batch_size=1)
    anchor = jnp.array([0.25, -0.1])
    u = jnp.array([0.3, -0.2])
    quiet = target.control_variate(anchor, *jax.value_and_grad(target.log_density)(anchor))
    keys = jax.random.split(jax.random.key(0), 4000)

    def sampled(target, key):
        return jax.value_and_grad(target.sampled(key))(u)

    noisy_value, noisy_slope = jax.vmap(lambda key: sampled(target, key))(
        jax.vmap(jax.random.clone)(keys)
    )
    value, slope = jax.vmap(lambda key: sampled(quiet, key))(keys)
    exact_value, exact_slope = jax.value_and_grad(target.log_density)(u)
    assert abs(value.mean() - exact_value) < 5 * value.std() / 4000**0.5
    assert np.all(np.abs(slope.mean(0) - exact_slope) < 5 * slope.std(0) / 4000**0.5)
    assert value.std() < 0.05 * noisy_value.std()
    assert np.all(slope.std(0) < 0.2 * noisy_slope.std(0))
    assert vi.targets.from_rows(log_prior, log_lik, data, 2, batch_size=2).control_variate is None


@pytest.mark.slow
def test_a_fit_by_minibatches_of_one_row_ends_at_the_answer_of_all():
    log_prior, log_lik, data = logistic(200)
    target = vi.targets.from_rows(log_prior, log_lik, data, 2, batch_size=1)
    exact = vi.fit(jax.random.key(0), target, vi.methods.bam())
    result = vi.fit(jax.random.key(1), target)
    assert result.converged
    assert "minibatches about a mode of all rows" in str(result)
    sd = np.sqrt(np.diag(exact.guide.covariance_matrix))
    np.testing.assert_allclose((result.guide.mean - exact.guide.mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(np.sqrt(np.diag(result.guide.covariance_matrix)) / sd, 1, atol=0.1)
