"""GDReG on two layers of Gaussians: exact gradients by quadrature, less noise, and the zeros that
the theory promises.

p(z1) = N(m, e^2a), p(z2 | z1) = N(w z1 + c, e^2b), p(x | z) = N(z2 + z1 / 2, 0.7^2); q(z1) q(z2 |
z1) likewise.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys

import vi_jax as vi
from vi_jax.distributions import Program, from_noise, to_noise

X = 1.2
NOISE = 0.7
PRIOR = {
    "first": {"loc": 0.2, "log_scale": 0.1},
    "second": {"weight": 0.8, "loc": -0.3, "log_scale": -0.2},
}
GUIDE = {
    "first": {"loc": 0.6, "log_scale": -0.4},
    "second": {"weight": 0.3, "loc": 0.4, "log_scale": -0.5},
}
PARAMS = jax.tree.map(jnp.float32, {"guide": GUIDE, "prior": PRIOR, "noise": np.log(NOISE)})


def first(params):
    return dist.Normal(params["first"]["loc"], jnp.exp(params["first"]["log_scale"]))


def second(params, z1):
    return dist.Normal(
        params["second"]["weight"] * z1 + params["second"]["loc"],
        jnp.exp(params["second"]["log_scale"]),
    )


def walk(params, context, site):
    z1 = site("z1", first(params))
    site("z2", second(params, z1))


def layered(params):
    return Program(params, None, walk)


def log_joint_of(params, log_lik=True):
    def log_joint(z):
        lik = dist.Normal(z["z2"] + 0.5 * z["z1"], jnp.exp(params["noise"])).log_prob(X)
        return layered(params["prior"]).log_prob(z) + (lik if log_lik else 0.0)

    return log_joint


def value(estimator, bound, params, key, num_samples, *, log_lik=True):
    options = {"prior": layered(params["prior"])} if estimator is vi.estimators.gdreg else {}
    return estimator(
        key,
        bound,
        log_joint_of(params, log_lik),
        layered(params["guide"]),
        num_samples=num_samples,
        **options,
    )


def gradients(estimator, bound, params, num_samples, num_keys, **options):
    """Of every parameter, each [num_keys]."""

    def one(key):
        return jax.grad(
            lambda params: value(estimator, bound, params, key, num_samples, **options)
        )(params)

    return jax.device_get(jax.jit(jax.vmap(one))(keys(1, num_keys)))


def stacked(tree):
    return np.stack([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)], -1)


@functools.cache
def exact_gradient(bound, num_samples):
    """By Gauss-Hermite quadrature over the 2 K noises, float64."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    grid = np.array(list(itertools.product(nodes, repeat=2 * num_samples))).reshape(
        -1, num_samples, 2
    )
    mass = np.prod(
        np.array(list(itertools.product(weights / weights.sum(), repeat=2 * num_samples))), -1
    )
    with jax.enable_x64(True):
        grid = jnp.asarray(grid)
        mass = jnp.asarray(mass)
        params = jax.tree.map(lambda leaf: jnp.float64(leaf), PARAMS)

        def mean(params):
            q = layered(params["guide"])
            log_joint = log_joint_of(params)

            def log_weight(eps):
                z = q.from_noise({"z1": eps[0], "z2": eps[1]})
                return log_joint(z) - q.log_prob(z)

            return (mass * jax.vmap(lambda eps: bound(jax.vmap(log_weight)(eps)))(grid)).sum()

        return stacked(jax.jit(jax.grad(mean))(params))


BOUNDS = {
    "elbo": vi.bounds.elbo,
    "iwae": vi.bounds.iwae,
    "vr_iwae": functools.partial(vi.bounds.vr_iwae, alpha=0.4),
    "renyi": functools.partial(vi.bounds.renyi, alpha=-0.5),
    "ciwae": functools.partial(vi.bounds.ciwae, beta=0.3),
}


@pytest.mark.cases(rest="slow", integration=["elbo", "iwae"])
@pytest.mark.integration
@pytest.mark.parametrize("bound", sorted(BOUNDS))
def test_the_mean_gradient_is_exact(bound):
    samples = stacked(gradients(vi.estimators.gdreg, BOUNDS[bound], PARAMS, 2, 40_000))
    assert_mean(samples, exact_gradient(BOUNDS[bound], 2))


@pytest.mark.integration
def test_quadrature_and_the_plain_estimator_agree():
    samples = stacked(gradients(vi.estimators.reparam, vi.bounds.iwae, PARAMS, 2, 40_000))
    assert_mean(samples, exact_gradient(vi.bounds.iwae, 2))


def variance_ratio(part, params, num_samples):
    """The summed variances under gdreg, relative to the plain estimator's."""
    better, plain = (
        stacked(gradients(estimator, vi.bounds.iwae, params, num_samples, 2_000)[part]).var(0).sum()
        for estimator in (vi.estimators.gdreg, vi.estimators.reparam)
    )
    return better / plain


@pytest.mark.cases(rest="slow", integration=["4"])
@pytest.mark.integration
@pytest.mark.parametrize("num_samples", [4, 64])
def test_the_guides_gradient_has_less_noise(num_samples):
    assert variance_ratio("guide", PARAMS, num_samples) < 0.05  # 0.015 and less


@pytest.mark.cases(rest="slow", integration=["1"])
@pytest.mark.integration
@pytest.mark.parametrize("num_samples", [1, 16])
def test_the_priors_gradient_has_less_noise_where_the_data_say_little_and_more_where_they_say_much(
    num_samples,
):
    """Its noise is that of d log p(x | z) / dz in place of that of d log p(z) / dtheta: which is
    less depends on the model.
    """

    def near_the_posterior(noise):
        guide = jax.tree.map(lambda leaf: jnp.float32(leaf) + 0.1, posterior(noise))
        return {**PARAMS, "noise": jnp.log(noise), "guide": guide}

    assert variance_ratio("prior", near_the_posterior(3.0), num_samples) < 0.1  # 0.04
    assert variance_ratio("prior", near_the_posterior(0.7), num_samples) > 1.0  # 1.1 to 1.8


@pytest.mark.integration
def test_without_a_prior_it_is_stl_and_dreg():
    def grad_of(estimator, bound, params):
        q = layered(params["guide"])
        log_joint = log_joint_of(params)
        return estimator(jax.random.key(3), bound, log_joint, q, num_samples=5)

    for other, bound in (
        (vi.estimators.stl, "elbo"),
        (vi.estimators.dreg, "iwae"),
        (vi.estimators.dreg, "vr_iwae"),
    ):
        ours, theirs = (
            stacked(jax.grad(functools.partial(grad_of, estimator, BOUNDS[bound]))(PARAMS))
            for estimator in (vi.estimators.gdreg, other)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def posterior(noise=NOISE):
    """The guide's parameters at p(z1 | x) p(z2 | z1, x), and the evidence as a function of the
    prior's.
    """
    mean, cov = moments(PRIOR)
    row = np.array([0.5, 1.0])
    gain = cov @ row / (row @ cov @ row + noise**2)
    mean = mean + gain * (X - row @ mean)
    cov = cov - np.outer(gain, row @ cov)
    weight = cov[0, 1] / cov[0, 0]
    return {
        "first": {"loc": mean[0], "log_scale": 0.5 * np.log(cov[0, 0])},
        "second": {
            "weight": weight,
            "loc": mean[1] - weight * mean[0],
            "log_scale": 0.5 * np.log(cov[1, 1] - weight * cov[0, 1]),
        },
    }


def moments(prior):
    w = prior["second"]["weight"]
    a = jnp.exp(2 * prior["first"]["log_scale"])
    b = jnp.exp(2 * prior["second"]["log_scale"])
    mean = jnp.array([prior["first"]["loc"], w * prior["first"]["loc"] + prior["second"]["loc"]])
    return mean, jnp.array([[a, w * a], [w * a, w**2 * a + b]])


def log_evidence(params):
    mean, cov = moments(params["prior"])
    row = jnp.array([0.5, 1.0])
    return dist.Normal(
        row @ mean, jnp.sqrt(row @ cov @ row + jnp.exp(2 * params["noise"]))
    ).log_prob(X)


@pytest.mark.cases(rest="slow", integration=["iwae"])
@pytest.mark.integration
@pytest.mark.parametrize("bound", ["elbo", "iwae", "renyi"])
def test_at_the_posterior_the_guides_gradient_is_zero_and_the_models_is_that_of_the_evidence(bound):
    params = {**PARAMS, "guide": jax.tree.map(jnp.float32, posterior())}
    found = gradients(vi.estimators.gdreg, BOUNDS[bound], params, 3, 20_000)
    plain = gradients(vi.estimators.reparam, BOUNDS[bound], params, 3, 2_000)
    assert np.abs(stacked(found["guide"])).max() < 2e-4  # every draw's, but for rounding
    assert stacked(plain["guide"]).std(0).min() > 0.1
    exact = jax.grad(log_evidence)(params)
    assert_mean(
        stacked({name: found[name] for name in ("noise", "prior")}),
        stacked({n: exact[n] for n in ("noise", "prior")}),
    )


@pytest.mark.integration
def test_where_guide_and_prior_are_one_the_kl_gives_the_prior_no_gradient():
    """Without data the ELBO is -KL(q || p): its gradient in p is 0 at q = p for every draw, where
    the score's is 0 on average.
    """
    params = {**PARAMS, "guide": PARAMS["prior"]}
    found = gradients(vi.estimators.gdreg, vi.bounds.elbo, params, 2, 100, log_lik=False)
    plain = gradients(vi.estimators.stl, vi.bounds.elbo, params, 2, 100, log_lik=False)
    assert np.abs(stacked(found["prior"])).max() < 1e-5
    assert stacked(plain["prior"]).std(0).min() > 0.1


@pytest.mark.integration
def test_a_prior_that_is_not_in_log_joint_adds_noise_and_no_bias():
    def one(key):
        def estimate(loc):
            other = layered({**PARAMS["prior"], "first": {"loc": loc, "log_scale": 0.3}})
            q = layered(PARAMS["guide"])
            return vi.estimators.gdreg(
                key, vi.bounds.iwae, log_joint_of(PARAMS), q, num_samples=4, prior=other
            )

        return jax.grad(estimate)(1.0)

    samples = np.asarray(jax.jit(jax.vmap(one))(keys(2, 20_000)))
    assert samples.std() > 0.01
    assert_mean(samples, 0.0)


# --- transports of noise
# --------------------------------------------------------------------------------------------

TRIL = jnp.array([[0.5, 0.0], [0.3, 1.2]])
DENSITIES = {
    "normal": lambda t: dist.Normal(jnp.array([0.3, -1.0]) * t, jnp.exp(t)).to_event(1),
    "expanded": lambda t: dist.Normal(t, 2.0).expand([3]).to_event(1),
    "laplace": lambda t: dist.Laplace(t, 2.0 + t),
    "log normal": lambda t: dist.LogNormal(t, 0.5 + t),
    "exponential": lambda t: dist.Exponential(1.0 + t),
    "half normal": lambda t: dist.HalfNormal(1.0 + t),
    "full": lambda t: dist.MultivariateNormal(jnp.array([t, 1.0]), scale_tril=TRIL * (1.0 + t)),
    "two layers": lambda t: layered(jax.tree.map(lambda leaf: leaf + t, PARAMS["prior"])),
}


@pytest.mark.cases(rest=None, slow=["exponential", "half normal", "laplace", "log normal"])
@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(DENSITIES))
def test_noise_there_and_back_and_its_law(name):
    make = DENSITIES[name]
    z = make(0.2).sample(jax.random.key(5), (7,))
    noise = jax.vmap(functools.partial(to_noise, make(0.2)))(z)
    for ours, theirs in zip(
        *map(jax.tree.leaves, (jax.vmap(functools.partial(from_noise, make(0.2)))(noise), z)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # one law of the noise, whatever the parameters: log p(T(eps)) + log |dT/deps| is a function of
    # eps alone
    other = make(0.9)
    first_noise = jax.tree.map(lambda leaf: leaf[0], noise)

    def log_law(p):
        flat, unflatten = jax.flatten_util.ravel_pytree(first_noise)
        jacobian = jax.jacobian(
            lambda flat: jax.flatten_util.ravel_pytree(from_noise(p, unflatten(flat)))[0]
        )(flat)
        return p.log_prob(from_noise(p, first_noise)) + jnp.linalg.slogdet(jacobian)[1]

    np.testing.assert_allclose(log_law(make(0.2)), log_law(other), rtol=1e-4)


@pytest.mark.integration
def test_layers_draw_and_score_as_the_joint_gaussian():
    p = layered(PARAMS["prior"])
    (mean, cov) = moments(PARAMS["prior"])
    drawn = p.sample(jax.random.key(6), (20_000,))
    z = jnp.stack([drawn["z1"], drawn["z2"]], -1)
    assert_mean(z, mean)
    centred = np.asarray(z) - np.asarray(mean)
    assert_mean(centred[:, :, None] * centred[:, None, :], cov)
    joint = dist.MultivariateNormal(mean, cov)
    np.testing.assert_allclose(
        p.log_prob({"z1": z[0, 0], "z2": z[0, 1]}), joint.log_prob(z[0]), rtol=1e-5
    )
    assert jax.tree.leaves(p.sample(jax.random.key(7), (2, 3)))[1].shape == (2, 3)
    np.testing.assert_array_equal(
        jax.grad(lambda p: vi.freeze(p).log_prob({"z1": 0.1, "z2": 0.2}))(p).params["first"]["loc"],
        0.0,
    )


def test_errors_are_sentences():
    with pytest.raises(ValueError, match="no transport from noise is known for Gamma"):
        to_noise(dist.Gamma(2.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="no transport from noise is known for StudentT"):
        from_noise(dist.StudentT(3.0), 1.0)


def test_layers_go_on_for_a_version():
    with pytest.warns(DeprecationWarning, match=r"distributions\.Program"):
        layers = vi.distributions.Layers(PARAMS["prior"], (first, second))
    z = layers.sample(jax.random.key(8))
    ours = layered(PARAMS["prior"])
    as_named = {"z1": z[0], "z2": z[1]}
    np.testing.assert_allclose(layers.log_prob(z), ours.log_prob(as_named), rtol=1e-6)
    for a, b in zip(layers.to_noise(z), ours.to_noise(as_named).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    with pytest.raises(ValueError, match="each of its 2 layers; got 1"):
        layers.log_prob((0.3,))
