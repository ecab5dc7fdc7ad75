"""Numbers at their ends: weights that underflow or are 0, one draw and ten thousand, both
precisions, second derivatives, and programs whose size does not grow with K.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, bounds, central_differences, members, normal, valid_bounds

import vi_jax as vi
from vi_jax.distributions import Bernoulli

BOUNDS = bounds()
SMOOTH = sorted(set(BOUNDS) - {"vr_max"})
# A weight of 0 is log_w = -inf: what averages log w is then -inf, what averages w forgets the draw.
OF_WEIGHTS = ("iwae", "renyi", "vr_iwae", "cubo", "vr_max")
PATHWISE = {name: members(vi.estimators)[name] for name in ("dreg", "gdreg", "reparam", "stl")}
PAIRS = [
    (name, bound)
    for name, estimator in PATHWISE.items()
    for bound in valid_bounds(estimator, BOUNDS)
]
FEW = [
    (name, bound) for name, bound in PAIRS if name != "gdreg" or bound in ("elbo", "iwae", "renyi")
]
PARAMS = {"loc": 0.3, "log_scale": -0.4, "w": 0.8}


def toy(params, dtype=jnp.float32):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)

    def log_joint(z):
        return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(
            params["w"] * jnp.sin(z), 0.7
        ).log_prob(1.0)

    return log_joint, dist.Normal(params["loc"], jnp.exp(params["log_scale"]))


def value(params, key, estimator, bound, num_samples, **options):
    log_joint, q = toy(params, jax.tree.leaves(params)[0].dtype)
    return PATHWISE[estimator](key, BOUNDS[bound], log_joint, q, num_samples=num_samples, **options)


def params_of(dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)


# --- log-weights at their ends
# ---------------------------------------------------------------------------------------


@pytest.mark.cases(rest=None, integration=["sumo", "tvo", "eubo", "miwae"])
@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_weights_that_underflow_leave_value_and_gradient_finite(name):
    log_w = jnp.asarray(-1e4 + 3.0 * normal(0, 8), jnp.float32)
    value, gradient = jax.value_and_grad(BOUNDS[name])(log_w)
    assert log_w.min() - 0.01 <= value <= log_w.max() + 0.01
    np.testing.assert_allclose(gradient.sum(), 1.0, rtol=1e-4)
    # 1e4 has steps of 0.001 in float32
    np.testing.assert_allclose(value + 1e4, BOUNDS[name](log_w + 1e4), atol=0.01)


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_a_draw_of_weight_zero_counts_among_the_k_and_no_more(name):
    log_w = jnp.array([-1.0, -jnp.inf, 0.5, -2.0])
    value, gradient = jax.value_and_grad(BOUNDS[name])(log_w)
    np.testing.assert_allclose(value, BOUNDS[name](log_w.at[1].set(-1e3)), rtol=1e-5)
    assert all_finite(gradient)
    assert gradient[1] == 0.0
    np.testing.assert_allclose(gradient.sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_a_draw_of_weight_zero_is_never_nan(name):
    value = BOUNDS[name](jnp.array([-1.0, -jnp.inf, 0.5, -2.0]))
    assert not jnp.isnan(value), f"{name} of a weight of 0 is nan"


# its differences of -inf are not defined
@pytest.mark.parametrize("name", sorted(set(BOUNDS) - {"sumo"}))
def test_if_no_draw_has_weight_the_bound_says_minus_infinity(name):
    value = BOUNDS[name](jnp.full(4, -jnp.inf))
    assert value == -jnp.inf


@pytest.mark.cases(rest=None, integration=["sumo-10000"])
@pytest.mark.parametrize("num_samples", [1, 10_000])
@pytest.mark.parametrize("name", SMOOTH)
def test_one_draw_and_ten_thousand(name, num_samples):
    log_w = jnp.asarray(normal(1, num_samples) - 500.0, jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(BOUNDS[name]))(log_w)
    assert log_w.min() <= value <= log_w.max()
    assert all_finite(gradient)
    np.testing.assert_allclose(gradient.sum(), 1.0, rtol=1e-4)


@pytest.mark.cases(rest=None, integration=["elbo--100.0", "elbo-100.0"])
@pytest.mark.parametrize("logit", [-100.0, 100.0])
@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_logits_at_their_ends_give_finite_gradients(bound, logit):
    """A decoder that is sure, of the right pixel and of the wrong one; and a Bernoulli guide that
    is.
    """

    def through(params, estimator, q, key):
        def log_joint(z):
            return Bernoulli(params + 0.1 * z.sum()).log_prob(x).sum() - 0.5 * (z**2).sum()

        return estimator(key, BOUNDS[bound], log_joint, q, num_samples=3)

    x = jnp.array([0.0, 1.0])
    for estimator, q in (
        (vi.estimators.reparam, dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)),
        (
            vi.estimators.score if bound == "elbo" else vi.estimators.vimco,
            Bernoulli(jnp.full(2, logit)).to_event(1),
        ),
    ):
        value, gradient = jax.value_and_grad(through)(
            jnp.full(2, logit), estimator, q, jax.random.key(0)
        )
        assert jnp.isfinite(value)
        assert all_finite(gradient)
        # the pixel whose logit has the wrong sign is x = 0 at +100, x = 1 at -100
        wrong = int(logit > 0)
        assert abs(float(gradient[1 - wrong])) == pytest.approx(1.0, abs=1e-3)


# --- precisions and transformations
# ---------------------------------------------------------------------------------


@pytest.mark.cases(
    rest="integration", default=["reparam-elbo", "dreg-iwae", "stl-elbo", "reparam-cubo"]
)
@pytest.mark.parametrize(("estimator", "bound"), FEW)
def test_both_precisions_keep_theirs_and_agree(estimator, bound, x64):
    """The same noise in both: float32 draws cast up, so that only the arithmetic differs."""
    noise = jnp.asarray(normal(2, 4), jnp.float32)

    class Fixed(dist.Normal):
        def sample(self, key, sample_shape=()):
            return self.loc + self.scale * noise.astype(self.loc.dtype)

    def run(params):
        dtype = params["loc"].dtype
        log_joint, q = toy(params, dtype)
        fixed = Fixed(q.loc, q.scale)
        return PATHWISE[estimator](
            jax.random.key(0), BOUNDS[bound], log_joint, fixed, num_samples=4
        )

    for dtype in (jnp.float32, jnp.float64):
        value, gradient = jax.jit(jax.value_and_grad(run))(params_of(dtype))
        assert value.dtype == dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(dtype)}
        if dtype == jnp.float32:
            single = (value, gradient)
    np.testing.assert_allclose(single[0], value, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(single[1]), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


@pytest.mark.cases(
    rest="slow",
    integration=[
        "dreg-iwae",
        "gdreg-renyi",
        "reparam-elbo",
        "reparam-cubo",
        "reparam-sumo",
        "stl-elbo",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize(("estimator", "bound"), FEW)
def test_jit_vmap_and_grad_compose_to_the_same(estimator, bound):
    def one(params, seed):
        return value(params, jax.random.key(seed), estimator, bound, 4)

    params = params_of(jnp.float32)
    seeds = jnp.arange(3)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(one), (None, 0)))(params, seeds)
    alone = jax.jit(jax.value_and_grad(one))
    for i in range(3):
        expected_value, expected = alone(params, i)
        np.testing.assert_allclose(values[i], expected_value, rtol=1e-4, atol=1e-5)
        for name, leaf in expected.items():
            np.testing.assert_allclose(gradients[name][i], leaf, rtol=1e-3, atol=1e-4)


@pytest.mark.cases(rest="slow", integration=["elbo", "iwae", "cubo", "tvo"])
@pytest.mark.integration
@pytest.mark.parametrize("bound", SMOOTH)
def test_the_hessian_of_a_smooth_bound_is_that_of_differences(bound, x64):
    start = np.array([PARAMS[name] for name in sorted(PARAMS)])

    def at(theta):
        params = dict(zip(sorted(PARAMS), theta, strict=True))
        return value(params, jax.random.key(7), "reparam", bound, 4)

    hessian = jax.jit(jax.hessian(at))(jnp.asarray(start))
    gradient = jax.jit(jax.grad(at))
    differences = np.stack(
        [
            central_differences(
                lambda theta, i=i: float(gradient(jnp.asarray(theta))[i]), start, step=1e-5
            )
            for i in range(3)
        ]
    )
    np.testing.assert_allclose(hessian, differences, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-8, atol=1e-10)


# --- size of the program, memory
# -------------------------------------------------------------------------------------


def num_equations(jaxpr):
    """Of a jaxpr and of all inside it."""
    inner = [
        getattr(leaf, "jaxpr", leaf)
        for eqn in jaxpr.eqns
        for leaf in jax.tree.leaves(list(eqn.params.values()))
    ]
    return len(jaxpr.eqns) + sum(num_equations(body) for body in inner if hasattr(body, "eqns"))


@pytest.mark.parametrize(("estimator", "bound"), FEW)
def test_the_program_does_not_grow_with_the_number_of_draws(estimator, bound):
    def size(num_samples):
        run = functools.partial(value, estimator=estimator, bound=bound, num_samples=num_samples)
        return num_equations(
            jax.make_jaxpr(jax.grad(run))(params_of(jnp.float32), jax.random.key(0)).jaxpr
        )

    if bound == "sumo":  # its running logsumexp is a tree, log2 K deep
        assert size(1_000) < np.log2(1_000) / np.log2(10) * size(10)
    else:
        assert size(1_000) == size(10)


@pytest.mark.cases(
    rest="slow", integration=["reparam-iwae-3", "dreg-iwae-20", "stl-elbo-8", "gdreg-renyi-3"]
)
@pytest.mark.integration
@pytest.mark.parametrize("chunk", [1, 3, 8, 20])
@pytest.mark.parametrize(
    ("estimator", "bound"),
    [("reparam", "iwae"), ("dreg", "iwae"), ("stl", "elbo"), ("gdreg", "renyi")],
)
def test_chunks_of_draws_leave_value_and_gradient(estimator, bound, chunk):
    run = functools.partial(value, estimator=estimator, bound=bound, num_samples=8)
    params = params_of(jnp.float32)
    whole = jax.value_and_grad(run)(params, jax.random.key(5))
    parts = jax.value_and_grad(functools.partial(run, chunk=chunk))(params, jax.random.key(5))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
