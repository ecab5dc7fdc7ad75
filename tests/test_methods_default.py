"""Which method `fit` picks: kinks and steps are told from what is smooth, steep or badly scaled,
and what rests on no curvature is right where there are kinks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.fitting import NUM_CANDIDATES
from vi_jax.methods.default import choose
from vi_jax.optimise import smoothness

SIZE = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, SIZE)).astype(np.float32)
SIGN = np.where(RNG.uniform(size=80) < 0.5, -1.0, 1.0).astype(np.float32)
Y = (X[:, :5].sum(1) + RNG.normal(size=80)).astype(np.float32)
NET = RNG.normal(size=(20, SIZE)).astype(np.float32) / SIZE**0.5
OUT = RNG.normal(size=20).astype(np.float32)
SD = np.logspace(-3, 3, SIZE).astype(np.float32)


def normal(u):
    return -0.5 * u @ u


SMOOTH = {
    "gaussian": normal,
    "badly scaled": lambda u: -0.5 * jnp.sum(((u - 100.0) / SD) ** 2),
    "funnel": lambda u: (
        dist.Normal(0.0, 3.0).log_prob(u[0])
        + dist.Normal(0.0, jnp.exp(0.5 * u[0])).log_prob(u[1:]).sum()
    ),
    "logistic regression": lambda u: -jax.nn.softplus(-SIGN * (X @ u)).sum() + normal(u),
    "logsumexp": lambda u: -jax.nn.logsumexp(20.0 * u) + normal(u),
    "narrow regression": lambda u: -0.5e4 * jnp.sum((Y - X @ u) ** 2) + normal(u),
    "rounded gradient": lambda u: normal(u) - 1e3 * (jnp.sum(u + 100.0) - jnp.sum(u)),
    "rounded value": lambda u: -1e4 * jnp.sum(jnp.sqrt(1.0 + 1e-4 * u**2)),
    "softplus": lambda u: -jax.nn.softplus(10.0 * u).sum() + normal(u),
    "student t": lambda u: dist.StudentT(1.0, 0.0, 0.05).log_prob(u).sum(),
}
KINKS = {
    "abs of one": lambda u: -jnp.abs(u[0]) + normal(u),
    "hinge": lambda u: -jnp.maximum(0.0, 1.0 - SIGN * (X @ u)).sum() + normal(u),
    "laplace": lambda u: dist.Laplace(0.0, 0.5).log_prob(u).sum(),
    "lasso": lambda u: -0.5 * jnp.sum((Y - X @ u) ** 2) - 5.0 * jnp.abs(u).sum(),
    "max": lambda u: -jnp.max(u) + normal(u),
    "relu network": lambda u: -((OUT @ jax.nn.relu(NET @ u)) ** 2) + normal(u),
}
STEPS = {
    "pieces that are flat": lambda u: -jnp.sum(jnp.round(u) ** 2) + 0.01 * normal(u),
    "steps": lambda u: 3.0 * jnp.sum(u > 0.3) + normal(u),
}
DTYPES = ["float32", pytest.param("float64", marks=pytest.mark.slow)]


def found(log_density, dtype):
    with jax.enable_x64(dtype == "float64"):
        measured = smoothness.measured(jax.random.key(0), log_density, jnp.zeros(SIZE, dtype))
        return float(measured.kink), float(measured.step)


@pytest.mark.cases(
    rest=None,
    slow=[
        "badly scaled-float32",
        "rounded gradient-float32",
        "softplus-float32",
        "logsumexp-float32",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_is_called_so(name, dtype):
    assert found(SMOOTH[name], dtype) == (0.0, 0.0)


@pytest.mark.cases(rest=None, slow=["abs of one-float32", "hinge-float32", "max-float32"])
@pytest.mark.integration
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_seen(name, dtype):
    kink, step = found(KINKS[name], dtype)
    assert kink > 0.5
    assert step == 0.0


@pytest.mark.integration
def test_the_jump_is_that_of_the_gradient():
    """2 / b for a Laplace of scale b, where a segment crosses one plane."""
    np.testing.assert_allclose(
        found(lambda u: dist.Laplace(0.0, 0.1).log_prob(u[0]) + normal(u), "float32")[0],
        20.0,
        rtol=1e-2,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STEPS)
def test_steps_are_seen(name, dtype):
    assert found(STEPS[name], dtype)[1] > 0.5


def test_a_density_without_a_second_derivative_is_not_known():
    @jax.custom_vjp
    def once(u):
        return normal(u)

    once.defvjp(lambda u: (normal(u), u), lambda u, g: (-g * u,))  # jvp of it is refused
    assert smoothness.measured(jax.random.key(0), once, jnp.zeros(3)) is None
    choice = choose(jax.random.key(0), vi.targets.from_log_density(once, 401))
    assert choice.method.name == "pathfinder"
    assert choice.why == "low rank, for 401 latents; whether it is smooth is not known"


def large(log_density):
    return vi.targets.from_log_density(lambda u: log_density(u[:SIZE]) + normal(u[SIZE:]), 401)


@pytest.mark.integration
def test_kinks_keep_off_a_method_that_rests_on_curvature():
    kinks, smooth, steps = (
        choose(jax.random.key(0), large(f)) for f in (KINKS["laplace"], normal, STEPS["steps"])
    )
    assert kinks.method.name == steps.method.name == "advi"
    assert kinks.why == "mean field, for 401 latents; not smooth (its gradient jumps by 4)"
    assert (
        steps.why
        == "mean field, for 401 latents; not smooth (it jumps by 3 nats, which no gradient sees)"
    )
    assert smooth.method.name == "variational_newton"
    assert smooth.why.startswith("a sparse precision, for 401 latents; 0.25 % of its Hessian are")
    assert kinks.evaluations == steps.evaluations == smoothness.NUM_GRADIENTS
    assert smooth.evaluations > smoothness.NUM_GRADIENTS
    small = choose(jax.random.key(0), vi.targets.from_log_density(KINKS["laplace"], SIZE))
    assert (small.method.name, small.why, small.evaluations) == (
        "bam",
        "full rank, for 40 latents",
        0,
    )


@pytest.mark.integration
def test_kinks_are_looked_for_about_the_start():
    far = large(lambda u: -jnp.abs(u - 50.0).sum() + normal(u))
    assert choose(jax.random.key(0), far).method.name == "variational_newton"
    assert choose(jax.random.key(0), far, jnp.full((2, 401), 50.0)).method.name == "advi"


@pytest.mark.integration
def test_fit_counts_what_the_choice_took():
    result = vi.fit(jax.random.key(0), large(KINKS["laplace"]))
    assert result.method == "advi"
    assert (
        result.evaluations
        == result.history["evaluations"][-1] + NUM_CANDIDATES + smoothness.NUM_GRADIENTS
    )


DESIGN = np.array([[1.0, 0.3], [-0.5, 1.2], [0.8, -1.0], [0.2, 0.4]], np.float32)
OUTCOME = np.array([0.4, 0.1, 0.3, -0.2], np.float32)


def lasso(u):  # both coefficients near 0, where the prior has its kinks
    return (
        dist.Normal(DESIGN @ u, 1.0).log_prob(OUTCOME).sum()
        + dist.Laplace(0.0, 0.4).log_prob(u).sum()
    )


@pytest.mark.integration
def test_the_default_is_right_on_a_lasso_by_quadrature():
    grid = jnp.linspace(-4.0, 4.0, 400)  # an even number: no point on a kink
    points = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    log_p = np.asarray(jax.jit(jax.vmap(lasso))(points), np.float64)
    w = np.exp(log_p - log_p.max())
    u = np.asarray(points, np.float64)
    evidence = log_p.max() + np.log(w.sum() * float(grid[1] - grid[0]) ** 2)
    mean = w @ u / w.sum()
    sd = np.sqrt(w @ (u - mean) ** 2 / w.sum())

    result = vi.fit(jax.random.key(0), vi.targets.from_log_density(lasso, 2))
    assert result.method == "bam"
    assert result.diagnostics.trusted
    d = result.diagnostics
    moments = result.moments()
    assert abs(d.log_evidence - evidence) < 0.01 + 5 * d.log_evidence_stderr
    np.testing.assert_allclose((moments["mean"] - mean) / sd, 0, atol=0.05)
    np.testing.assert_allclose(moments["sd"] / sd, 1, atol=0.05)
    # of the guide, unweighted: a Gaussian on a density that is peaked, a little narrow
    draws = np.asarray(result.weighted.u)
    np.testing.assert_allclose((draws.mean(0) - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(draws.std(0) / sd, 0.9, atol=0.1)


@pytest.mark.slow
def test_the_pick_beats_curvature_on_a_large_lasso():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(600, 450)).astype(np.float32)
    outcome = (design[:, :20].sum(1) + rng.normal(size=600)).astype(np.float32)
    target = vi.targets.from_log_density(
        lambda u: -0.5 * jnp.sum((outcome - design @ u) ** 2) - 5.0 * jnp.abs(u).sum(), 450
    )
    picked = vi.fit(jax.random.key(0), target)
    assert "not smooth (its gradient jumps by" in picked.why
    curved = vi.fit(jax.random.key(0), target, vi.methods.pathfinder())
    assert picked.diagnostics.elbo > curved.diagnostics.elbo + 10.0  # 22 nats
