"""Families whose draws have no one differentiable path: gradients against quadrature, and against
the moving quantile itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, assert_mean, keys, normal
from scipy import optimize, stats

import vi_jax as vi

MIXTURE = {
    "logits": [0.3, -0.6, 0.1],
    "loc": [[-1.0, 0.5], [1.2, -0.4], [0.3, 1.5]],
    "log_scale": [[-0.5, 0.1], [0.2, -0.4], [-1.0, -0.2]],
}
STUDENT = {"loc": [0.3, -0.5], "log_scale": [-0.2, 0.3], "raw_df": [-0.4, -1.0]}


def as_arrays(params, num_latents):
    params = {name: jnp.asarray(value) for name, value in params.items()}
    return {
        name: value if name == "logits" else value[..., :num_latents]
        for name, value in params.items()
    }


def integrand(z):
    """Bounded, curved, and not a sum over dimensions."""
    return jnp.sin(z.sum() + 0.3) + jnp.tanh(jnp.prod(z)) + jnp.log1p((z**2).sum())


def quadrature_gradient(family, params, half, num_points):
    """The exact gradient of E_q[integrand], by a sum over a grid."""
    num_latents = params["loc"].shape[-1]
    side = np.linspace(-half, half, num_points)
    z = jnp.asarray(
        np.stack(np.meshgrid(*[side] * num_latents, indexing="ij"), -1).reshape(-1, num_latents)
    )
    f = jax.vmap(integrand)(z)
    cell = (side[1] - side[0]) ** num_latents

    def expectation(params):
        return jnp.sum(jnp.exp(jax.vmap(family.guide(params).log_prob)(z)) * f) * cell

    return jax.jit(jax.grad(expectation))(params)


def assert_gradient(estimate, expected):
    for name, value in expected.items():
        assert_mean(estimate[name], value)
        assert np.abs(value).max() > 1e-3, f"the integrand does not test {name}"


@pytest.mark.integration
@pytest.mark.parametrize("num_latents", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize(
    ("family", "start", "half"),
    [(vi.families.mixture, MIXTURE, 10.0), (vi.families.student_t, STUDENT, 60.0)],
    ids=["mixture", "t"],
)
def test_mean_gradients_are_those_of_quadrature(family, start, half, num_latents, x64):
    made = (
        family(num_latents, num_components=3)
        if family is vi.families.mixture
        else family(num_latents)
    )
    params = as_arrays(start, num_latents)
    estimate = jax.jit(
        jax.vmap(jax.grad(lambda params, key: integrand(made.guide(params).sample(key))), (None, 0))
    )
    expected = quadrature_gradient(made, params, half, 4001 if num_latents == 1 else 1201)
    assert_gradient(estimate(params, keys(0, 20_000)), expected)


@pytest.mark.parametrize("num_latents", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_stratified_gradients_are_those_of_quadrature(num_latents, x64):
    made = vi.families.mixture(num_latents, num_components=3)
    params = as_arrays(MIXTURE, num_latents)

    def value(params, key):
        z, log_weights = made.guide(params).sample_stratified(key, (2,))
        assert z.shape == (2, 3, num_latents)
        return jnp.mean(jax.vmap(jax.vmap(integrand))(z) @ jnp.exp(log_weights))

    estimate = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(params, keys(1, 5_000))
    assert_gradient(
        estimate, quadrature_gradient(made, params, 10.0, 4001 if num_latents == 1 else 1201)
    )


@pytest.mark.integration
def test_a_draw_moves_with_its_quantile(x64):
    """In one dimension dz/dtheta is the derivative of F^-1(u; theta) at the u of the draw, out to
    the tails.
    """
    params = as_arrays(MIXTURE, 1)

    def cdf(z, params):
        weights = np.exp(params["logits"]) / np.exp(params["logits"]).sum()
        return weights @ stats.norm.cdf(z, params["loc"][:, 0], np.exp(params["log_scale"][:, 0]))

    def draw(params):
        return (
            vi.families.mixture(1, num_components=3)
            .guide(params)
            .sample(jax.random.key(2), (6,))[:, 0]
        )

    slopes = jax.jit(jax.jacrev(draw))(params)
    h = 1e-5
    for name, value in params.items():
        for index in np.ndindex(value.shape):
            moved = [
                {**params, name: np.asarray(value.at[index].add(sign * h))} for sign in (1, -1)
            ]
            for i, z in enumerate(np.asarray(draw(params))):
                u = cdf(z, params)
                up, down = (
                    optimize.brentq(lambda t, p=p, u=u: cdf(t, p) - u, z - 1, z + 1, xtol=1e-14)
                    for p in moved
                )
                np.testing.assert_allclose(
                    slopes[name][(i, *index)], (up - down) / (2 * h), rtol=1e-5, atol=1e-7
                )


def test_a_mixture_of_one_is_reparameterised_as_a_gaussian(x64):
    params = {
        "logits": jnp.zeros(1),
        "loc": jnp.array([[0.4, -1.0]]),
        "log_scale": jnp.array([[0.2, -0.5]]),
    }

    def f(params):
        return vi.families.mixture(2, num_components=1).guide(params).sample(jax.random.key(0))

    z, slopes = jax.jit(lambda params: (f(params), jax.jacfwd(f)(params)))(params)
    np.testing.assert_allclose(slopes["loc"][:, 0], np.eye(2), atol=1e-12)
    np.testing.assert_allclose(slopes["log_scale"][:, 0], np.diag(z - params["loc"][0]), atol=1e-12)
    np.testing.assert_allclose(slopes["logits"], 0.0, atol=1e-12)


@pytest.mark.integration
def test_components_that_are_far_apart_leave_gradients_finite():
    params = {
        "logits": jnp.array([0.0, -30.0, 3.0]),
        "loc": jnp.array([[-1e3], [0.0], [1e3]]),
        "log_scale": jnp.array([[-6.0], [0.0], [5.0]]),
    }
    guide = vi.families.mixture(1, num_components=3).guide

    def value(params):
        q = guide(params)
        z = q.sample(jax.random.key(0), (500,))
        return jax.vmap(q.log_prob)(z).mean() + jnp.sin(z).mean()

    assert all_finite(jax.jit(jax.value_and_grad(value))(params))


@pytest.mark.integration
def test_a_heavy_tail_is_drawn_as_scipy_draws_it(x64):
    q = vi.families.student_t(2).guide(as_arrays(STUDENT, 2))
    z = np.asarray(jax.jit(lambda key: q.sample(key, (20_000,)))(jax.random.key(0)))
    for j in range(2):
        law = stats.t(float(q.df[j]), float(q.loc[j]), float(np.exp(q.log_scale[j])))
        assert stats.kstest(z[:, j], law.cdf).pvalue > 1e-3
        np.testing.assert_allclose(q.variance[j], law.var(), rtol=1e-10)
    expected = sum(
        stats.t(float(q.df[j]), float(q.loc[j]), float(np.exp(q.log_scale[j]))).logpdf(z[:9, j])
        for j in range(2)
    )
    np.testing.assert_allclose(q.log_prob(jnp.asarray(z[:9])), expected, rtol=1e-10)


@pytest.mark.integration
def test_t_with_many_degrees_of_freedom_is_the_gaussian_in_float32():
    guide = vi.families.student_t(3).guide
    params = {"loc": jnp.zeros(3), "log_scale": jnp.zeros(3), "raw_df": jnp.full(3, 1e6)}
    z = jnp.asarray(normal(0, 3), jnp.float32)
    np.testing.assert_allclose(
        guide(params).log_prob(z), stats.norm.logpdf(np.asarray(z)).sum(), rtol=1e-5
    )


def test_degrees_of_freedom_of_one_are_refused():
    with pytest.raises(ValueError, match="df above 1"):
        vi.families.student_t(2, df=1.0)


@pytest.mark.integration
def test_the_density_of_a_mixture_of_guides(x64):
    params = as_arrays(MIXTURE, 2)
    whole = vi.families.mixture(2, num_components=3).guide(params)
    parts = [
        vi.families.mean_field(2).guide(
            {"loc": params["loc"][k], "log_scale": params["log_scale"][k]}
        )
        for k in range(3)
    ]
    z = jnp.array([0.3, -0.7])
    density = vi.families.mixture_log_prob(jax.nn.softmax(params["logits"]), parts)
    np.testing.assert_allclose(density(z), whole.log_prob(z), rtol=1e-12)
    # a guide that comes in with weight 0 changes nothing, and its gradient is q_new / q - a number,
    # not nan
    full = vi.families.full_rank(2).guide(
        {"loc": jnp.zeros(2), "log_diag": jnp.zeros(2), "lower": jnp.array([0.5])}
    )
    value, slope = jax.jit(
        jax.value_and_grad(lambda w: vi.families.mixture_log_prob(w, [parts[0], full])(z))
    )(jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(value, parts[0].log_prob(z), rtol=1e-12)
    np.testing.assert_allclose(
        slope[1], np.exp(full.log_prob(z) - parts[0].log_prob(z)), rtol=1e-12
    )
    with pytest.raises(ValueError, match="one weight for each guide"):
        vi.families.mixture_log_prob(jnp.ones(2), parts)


def test_stratified_draws_of_a_pytree():
    made = vi.families.mixture({"a": jnp.zeros(2), "b": jnp.zeros(())}, num_components=4)
    z, log_weights = made.guide(made.init(jax.random.key(0))).sample_stratified(
        jax.random.key(1), (5,)
    )
    assert jax.tree.map(jnp.shape, z) == {"a": (5, 4, 2), "b": (5, 4)}
    np.testing.assert_allclose(jnp.exp(log_weights), 0.25, rtol=1e-6)
