"""ADVI in every family of the room: on Gaussians that a family holds it meets the log evidence, on
a bent one it does no worse than the best Gaussian, whatever the units; and a run that diverges says
so.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import members

import vi_jax as vi
from vi_jax.gaussian import log_standard_normal
from vi_jax.methods._placed import Placed
from vi_jax.methods._units import Units

SMALL = {  # what compiles quickly and still bends
    "iaf": {"num_layers": 2, "hidden": (8,)},
    "maf": {"num_layers": 2, "hidden": (8,)},
    "mixture": {"num_components": 3},
    "neural_spline": {"num_layers": 2, "num_bins": 4, "hidden": (8,)},
    "planar": {"num_layers": 4},
    "radial": {"num_layers": 4},
    "real_nvp": {"num_layers": 2, "hidden": (8,)},
    "sylvester": {"num_layers": 2},
}
# over vectors; `constrained` takes supports
FAMILIES = {
    name: partial(family, **SMALL.get(name, {}))
    for name, family in members(vi.families).items()
    if name != "constrained"
}
QUICK = ("low_rank", "iaf")
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(FAMILIES)
]

SIZE = 5
SD = np.array([0.1, 10.0, 1.0, 3.0, 0.03])
MEAN = SD * np.array([3.0, -20.0, 0.5, 5.0, 1.0])
COUPLING = np.array([0.8, -0.5, 1.0, 0.6, -0.9])


def covariance(name):
    """[5, 5] in units of SD: one that the family holds, or as much of one as it can take of any."""
    rank_one = np.eye(SIZE) + np.outer(COUPLING, COUPLING)
    chain = 1.5 * np.eye(SIZE) - 0.6 * (np.eye(SIZE, k=1) + np.eye(SIZE, k=-1))
    held = {
        "rank_one_precision": np.linalg.inv(rank_one),
        "gaussian_markov_chain": np.linalg.inv(chain),
    }
    return held.get(name, rank_one) * np.outer(SD, SD)


def mean_field_loss(cov):
    """KL(q, p) of the nearest mean-field Gaussian: half of sum log P_jj - log det P, P the
    precision.
    """
    return 0.5 * (np.log(np.diag(np.linalg.inv(cov))).sum() + np.linalg.slogdet(cov)[1])


# in units of the mean-field Gaussian's loss; 0 for others
LOSS = {"mean_field": 1.0, "student_t": 1.0, "mixture": 1.0}
SLACK = 0.05  # nats


def gaussian(cov, log_evidence):
    root = jnp.asarray(np.linalg.inv(np.linalg.cholesky(cov)))
    shift = log_evidence - np.log(np.diag(np.linalg.cholesky(cov))).sum()

    def log_density(u):
        return log_standard_normal(root.astype(u.dtype) @ (u - jnp.asarray(MEAN, u.dtype))) + shift

    return log_density


def banana(u):
    """Scales 50 and 1/1000, the first 300 away; log evidence 1.7.

    A Gaussian of scale s in x loses -log s + s^2 / 2 - 1 / 2 there and s^4 / 4 by the bend: 0.145
    nats at s^4 + s^2 = 1.
    """
    x = (u[0] - 300.0) / 50.0
    y = u[1] / 0.001 - 0.5 * (x**2 - 1.0)
    return log_standard_normal(jnp.stack([x, y])) - np.log(50.0 * 0.001) + 1.7


@pytest.mark.cases(rest=None, slow=["iaf"])
@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_a_gaussian_that_the_family_holds_is_met(name):
    cov = covariance(name)
    target = vi.targets.from_log_density(gaussian(cov, 2.0), SIZE)
    result = vi.fit(jax.random.key(0), target, vi.methods.advi(FAMILIES[name]))
    d = result.diagnostics
    loss = LOSS.get(name, 0.0) * mean_field_loss(cov)
    assert result.converged
    assert 2.0 - loss - SLACK - 3 * d.elbo_stderr < d.elbo < 2.0 + 3 * d.elbo_stderr
    assert abs(d.log_evidence - 2.0) < 0.05 + 5 * d.log_evidence_stderr


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in sorted(FAMILIES)]
)
def test_a_bent_posterior_far_away_in_bad_units_is_met(name):
    result = vi.fit(
        jax.random.key(0), vi.targets.from_log_density(banana, 2), vi.methods.advi(FAMILIES[name])
    )
    d = result.diagnostics
    assert result.converged
    assert 1.7 - 0.145 - SLACK < d.elbo < 1.7 + 3 * d.elbo_stderr


def base_guide(name, size=3):
    made = FAMILIES[name](size)
    return made.guide(jax.tree.map(lambda leaf: leaf + 0.1, made.init(jax.random.key(1))))


@pytest.mark.cases(rest=None, slow=["student_t-triangle", "real_nvp-diagonal"])
@pytest.mark.integration
@pytest.mark.parametrize("root", ["diagonal", "triangle"])
# without `sample_and_log_prob`, and with
@pytest.mark.parametrize("name", ["student_t", "real_nvp"])
def test_a_guide_pushed_through_an_affine_map_keeps_its_mass(name, root):
    """log q(loc + T x) + log |det T| = log q_0(x), T's determinant by numpy."""
    t = jnp.array([[2.0, 0.0, 0.0], [0.5, 0.1, 0.0], [-3.0, 0.2, 40.0]])
    t = t if root == "triangle" else jnp.diag(t)
    matrix = np.asarray(t if t.ndim == 2 else jnp.diag(t))
    base = base_guide(name)
    loc = jnp.array([1.0, -2.0, 30.0])
    q = Units(loc, t).guide(base)
    assert isinstance(q, Placed)
    x = base.sample(jax.random.key(2), (7,))
    u = q.sample(jax.random.key(2), (7,))
    np.testing.assert_allclose(u, loc + x @ matrix.T, rtol=1e-5)
    expected = jax.vmap(base.log_prob)(x) - np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(q.log_prob(u), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.vmap(q.log_prob)(u), expected, rtol=1e-4, atol=1e-4)
    again, log_q = q.sample_and_log_prob(jax.random.key(2), (7,))
    np.testing.assert_allclose(again, u, rtol=1e-5)
    np.testing.assert_allclose(log_q, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cases(rest=None, slow=["mean_field"])
@pytest.mark.integration
@pytest.mark.parametrize("name", ["mean_field", "full_rank", "low_rank"])
def test_gaussians_keep_their_form_in_other_units(name):
    units = Units(jnp.array([1.0, -2.0, 30.0]), jnp.array([2.0, 0.1, 40.0]))
    base = base_guide(name)
    q = units.guide(base)
    placed = Placed(base, units.loc, units.root)
    assert type(q) is type(base)
    u = placed.sample(jax.random.key(2), (7,))
    np.testing.assert_allclose(q.log_prob(u), placed.log_prob(u), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(q.mean, placed.mean, rtol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("iaf", "real_nvp", "planar")]
)
def test_a_run_that_diverges_says_so(name):
    method = vi.methods.advi(FAMILIES[name], optimizer=optax.adam(1.0), num_steps=3_000)
    try:
        result = vi.fit(jax.random.key(0), vi.targets.from_log_density(banana, 2), method)
    except (FloatingPointError, vi.targets.TargetError):
        return
    assert not result.converged or result.diagnostics.elbo > 1.7 - 0.145 - 0.5
