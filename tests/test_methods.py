"""Laws that every method keeps on targets whose posterior is known: walk the room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_jax as vi

MEAN = jnp.array([1.0, -2.0, 0.5])
ROOT = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.2, 2.0]])
COVARIANCE = ROOT @ ROOT.T


def gaussian(u):
    return -0.5 * jnp.sum(jax.scipy.linalg.solve_triangular(ROOT, u - MEAN, lower=True) ** 2) + 3.0


TARGET = vi.targets.from_log_density(gaussian, 3)
EVIDENCE = 3.0 + 1.5 * np.log(2 * np.pi) + 0.5 * np.log(np.linalg.det(np.asarray(COVARIANCE)))
FULL_RANK = {
    "bam": vi.methods.bam(),
    "bam_low_rank": vi.methods.bam_low_rank(),
    "gsm": vi.methods.gsm(),
    "laplace": vi.methods.laplace(),
    "natural_gradient": vi.methods.natural_gradient(),
    "nested_laplace": vi.methods.nested_laplace([1]),
    "pathfinder": vi.methods.pathfinder(memory=8, tolerance=1e-7),
    "variational_newton": vi.methods.variational_newton(),
}
METHODS = FULL_RANK | {
    "advi": vi.methods.advi(),
    "boosting": vi.methods.boosting(num_inner_steps=5, num_draws=4, num_candidates=32),
    "dadvi": vi.methods.dadvi(),
    "flow": vi.methods.flow(num_draws=4),
    "svgd": vi.methods.svgd(num_particles=20),
}


SLOW = ("flow", "boosting", "nested_laplace", "variational_newton")
COMPILES_LONG = ("nested_laplace", "variational_newton")


@pytest.mark.cases(rest=None, integration=["bam", "natural_gradient", "bam_low_rank"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.integration] * (name in COMPILES_LONG))
        for name in FULL_RANK
    ],
)
def test_a_gaussian_posterior_is_found(name):
    result = vi.fit(jax.random.key(0), TARGET, FULL_RANK[name])
    u = result.weighted.u
    tolerance = 5 / np.sqrt(len(u)) + 0.02
    np.testing.assert_allclose(
        (u.mean(0) - MEAN) / jnp.sqrt(jnp.diag(COVARIANCE)), 0, atol=tolerance
    )
    np.testing.assert_allclose(u.std(0) / jnp.sqrt(jnp.diag(COVARIANCE)), 1, atol=tolerance)
    assert (
        abs(result.diagnostics.log_evidence - EVIDENCE)
        < 0.01 + 5 * result.diagnostics.log_evidence_stderr
    )
    assert result.diagnostics.verdict == "reliable"
    assert result.converged


@pytest.mark.cases(rest=None, integration=["advi", "bam", "dadvi"], slow=["svgd", "bam_low_rank"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] * (name in ("flow", "boosting", *COMPILES_LONG))
        )
        for name in METHODS
    ],
)
def test_init_and_step_live_in_a_loop_of_ones_own(name):
    method = METHODS[name]

    @jax.jit
    @jax.vmap
    def run(key_init, keys, start):
        def step(state, key):
            return method.step(key, gaussian, state)

        return jax.lax.scan(step, method.init(key_init, gaussian, start), keys)

    key_init, key_steps = jax.random.split(jax.random.key(0))
    with jax.debug_key_reuse(False):  # it reports a scan over keys under vmap, which uses each once
        states, info = run(
            jax.random.split(key_init, 2), jax.random.split(key_steps, (2, 30)), jnp.zeros((2, 3))
        )
    assert info.value.shape == info.done.shape == (2, 30)
    assert np.all(np.diff(info.evaluations, axis=1) > 0)

    @jax.jit
    def draws(states, key, other):
        q = method.guide(jax.tree.map(lambda leaf: leaf[0], states))
        return q.sample(key, (5,)), q.log_prob(q.sample(other))

    five, log_q = draws(states, jax.random.key(1), jax.random.key(2))
    assert five.shape == (5, 3)
    assert log_q.shape == ()


@pytest.mark.integration
def test_batch_and_match_solves_its_equation_and_meets_a_gaussian_exactly():
    from vi_jax.methods.bam import _solve

    u = COVARIANCE + jnp.eye(3)
    v = 2.0 * jnp.eye(3) + COVARIANCE
    s = _solve(u, v)
    np.testing.assert_allclose(s @ u @ s + s, v, rtol=1e-4, atol=1e-4)
    q = vi.fit(jax.random.key(0), TARGET, vi.methods.bam()).guide
    np.testing.assert_allclose(q.mean, MEAN, atol=2e-3)
    np.testing.assert_allclose(q.covariance_matrix, COVARIANCE, rtol=1e-2, atol=5e-3)
