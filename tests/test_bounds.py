"""Laws that every bound of the folder obeys, what sets each apart, and the exact gradients of the
two that are there by name.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_mean, bounds, normal

import vi_jax as vi
from vi_jax.attributes import attribute
from vi_jax.bounds import elbo, iwae
from vi_jax.estimators._bounds import path_factor

pytestmark = pytest.mark.usefixtures("strict_ranks")

BOUNDS = bounds()
# E_pi[log w] under weights that move with log w: not monotone in each of them
REWEIGHTED = {"eubo", "tvo", "sumo"}
IN_ORDER = {"sumo"}  # the order of the draws is part of the estimate


@pytest.fixture(params=sorted(BOUNDS))
def bound(request):
    return BOUNDS[request.param]


@pytest.fixture(params=sorted(set(BOUNDS) - IN_ORDER))
def exchangeable(request):
    return BOUNDS[request.param]


@pytest.fixture(params=sorted(set(BOUNDS) - REWEIGHTED))
def monotone(request):
    return BOUNDS[request.param]


def log_weights(num_draws, seed=0, spread=3.0):
    return jnp.asarray(spread * normal(seed, num_draws) - 80.0, jnp.float32)


def test_constant_weights_give_the_constant(bound):
    levels = np.array([-543.25, 0.0, 3.5], np.float32)

    @jax.jit
    def values(levels):
        return {
            num_draws: [bound(jnp.full(num_draws, level)) for level in levels]
            for num_draws in (1, 2, 7, 1000)
        }

    for num_draws, found in values(levels).items():
        np.testing.assert_allclose(
            found, levels, rtol=2e-6, atol=2e-6, err_msg=f"{num_draws} draws"
        )


def test_one_draw_is_its_log_weight(bound):
    np.testing.assert_allclose(bound(jnp.array([-3.25])), -3.25, rtol=1e-6)


def test_order_does_not_matter(exchangeable):
    bound = exchangeable
    log_w = log_weights(50)
    np.testing.assert_allclose(bound(log_w[::-1]), bound(log_w), rtol=1e-6)
    shuffled = np.random.default_rng(1).permutation(log_w)
    np.testing.assert_allclose(bound(jnp.asarray(shuffled)), bound(log_w), rtol=1e-6)


def test_a_shift_of_the_log_weights_shifts_the_bound(bound):
    log_w = log_weights(20)
    shifts = jnp.array([-250.0, 0.125, 64.0])
    shifted = jax.jit(jax.vmap(bound))(log_w[None] + shifts[:, None])
    np.testing.assert_allclose(shifted, bound(log_w) + shifts, rtol=2e-6)


def test_a_larger_weight_never_lowers_it(monotone):
    bound = monotone
    log_w = log_weights(12)
    raised = jax.vmap(bound)(jnp.tile(log_w, (12, 1)) + 2.0 * jnp.eye(12))
    assert jnp.all(raised >= bound(log_w))
    assert jnp.any(raised > bound(log_w) + 0.01)


def test_it_lies_between_the_smallest_and_the_largest(exchangeable):
    bound = exchangeable
    log_w = log_weights(12)
    assert log_w.min() <= bound(log_w) <= log_w.max()


EXTREMES = ([-1e4, 1e4], [1e4, 1e4 + 1.0], [-1e4, -1e4 - 1.0], [0.0, -1e4])


def test_huge_log_weights_stay_finite_and_the_gradient_sums_to_one(bound):
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(bound)))(jnp.array(EXTREMES))
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    np.testing.assert_allclose(gradients.sum(1), 1.0, rtol=1e-5)  # the derivative of the shift law


def test_the_gradient_of_a_monotone_bound_is_a_set_of_weights(monotone):
    gradient = jax.grad(monotone)(log_weights(9))
    assert jnp.all(gradient >= 0)
    np.testing.assert_allclose(gradient.sum(), 1.0, rtol=1e-5)


@pytest.mark.cases(rest=None, integration=["sumo", "tvo"])
def test_jit_vmap_and_grad_compose(bound):
    batch = jnp.stack([log_weights(6, seed) for seed in range(4)])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(bound)))(batch)
    assert values.shape == (4,)
    for value, gradient, log_w in zip(values, gradients, batch, strict=True):
        np.testing.assert_allclose(value, bound(log_w), rtol=1e-6)
        np.testing.assert_allclose(gradient, jax.grad(bound)(log_w), rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (1, 1)])
def test_other_shapes_are_refused_in_words(bound, shape):
    with pytest.raises(ValueError, match=r"shape \[K\].*vmap over examples") as error:
        bound(jnp.zeros(shape))
    assert str(shape) in str(error.value)


def test_dtype_is_kept(bound, x64):
    for dtype in (jnp.float32, jnp.float64):
        assert bound(jnp.zeros(3, dtype)).dtype == dtype


def test_a_bound_says_on_which_side_of_the_evidence_it_is():
    sides = {name: attribute(bound, "side", "lower") for name, bound in BOUNDS.items()}
    others = {name: side for name, side in sides.items() if side != "lower"}
    assert others == {"cubo": "upper", "eubo": "upper", "sumo": "estimate"}
    assert vi.bounds.tvo_upper.side == "upper"


@pytest.mark.parametrize(
    "name", [name for name, bound in BOUNDS.items() if attribute(bound, "path_factor")]
)
def test_the_path_factor_is_that_of_its_derivatives(name, x64):
    bound = BOUNDS[name]
    log_w = jnp.asarray(normal(4, 9))
    slope = jax.grad(bound)(log_w)
    second = jnp.diagonal(jax.hessian(bound)(log_w))
    np.testing.assert_allclose(path_factor(bound, slope), 1 - second / slope, rtol=1e-10)


def test_elbo_is_the_mean_and_iwae_the_log_mean_exp(x64):
    log_w = normal(3, 40) * 3.0
    np.testing.assert_allclose(elbo(jnp.asarray(log_w)), log_w.mean(), rtol=1e-14)
    np.testing.assert_allclose(iwae(jnp.asarray(log_w)), np.log(np.exp(log_w).mean()), rtol=1e-14)


def test_gradients_are_uniform_and_normalised_weights(x64):
    log_w = jnp.asarray(normal(4, 9) * 5.0)
    np.testing.assert_allclose(jax.grad(elbo)(log_w), np.full(9, 1 / 9), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(iwae)(log_w), jax.nn.softmax(log_w), rtol=1e-12)


def test_elbo_is_below_iwae_on_the_same_draws():
    batch = jnp.asarray(3.0 * normal(5, 500, 8), jnp.float32)
    gap = jax.vmap(iwae)(batch) - jax.vmap(elbo)(batch)
    assert jnp.all(gap > 0)  # Jensen, strictly: no row is constant


def test_iwae_rises_with_the_number_of_draws_towards_the_log_mean():
    # w is log-normal with mean 1: log p(x) = 0, and each row's bounds share their draws
    spread = 1.0
    log_w = jnp.asarray(spread * normal(6, 20_000, 16) - spread**2 / 2, jnp.float32)
    values = {k: np.asarray(jax.vmap(iwae)(log_w[:, :k])) for k in (1, 2, 4, 8, 16)}
    assert_mean(values[1], -(spread**2) / 2)
    for small, large in zip((1, 2, 4, 8), (2, 4, 8, 16), strict=True):
        gain = values[large] - values[small]
        assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5, (
            f"K = {large} is not above K = {small}"
        )
    assert -0.1 < values[16].mean() < 0


# What sets each of the others apart.


def test_miwae_is_a_mean_of_iwae_over_groups_between_its_two_ends(x64):
    log_w = jnp.asarray(3.0 * normal(7, 12))
    groups = [iwae(log_w[i : i + 4]) for i in (0, 4, 8)]
    np.testing.assert_allclose(vi.bounds.miwae(log_w, num_groups=3), np.mean(groups), rtol=1e-14)
    np.testing.assert_allclose(vi.bounds.miwae(log_w, num_groups=12), elbo(log_w), rtol=1e-14)
    np.testing.assert_allclose(vi.bounds.miwae(log_w, num_groups=1), iwae(log_w), rtol=1e-14)
    with pytest.raises(ValueError, match="5 groups of 12 samples"):
        vi.bounds.miwae(log_w, num_groups=5)


def test_ciwae_joins_its_two_ends_in_a_line(x64):
    log_w = jnp.asarray(3.0 * normal(8, 12))
    for beta in (0.0, 0.25, 1.0):
        expected = beta * elbo(log_w) + (1 - beta) * iwae(log_w)
        np.testing.assert_allclose(vi.bounds.ciwae(log_w, beta=beta), expected, rtol=1e-14)
    with pytest.raises(ValueError, match="beta from 0"):
        vi.bounds.ciwae(log_w, beta=1.5)


def test_renyi_has_the_elbo_iwae_and_the_maximum_as_limits_and_falls_with_alpha(x64):
    log_w = jnp.asarray(3.0 * normal(9, 30))
    renyi = vi.bounds.renyi
    np.testing.assert_allclose(renyi(log_w, alpha=0.0), iwae(log_w), rtol=1e-14)
    np.testing.assert_allclose(renyi(log_w, alpha=1.0), elbo(log_w), rtol=1e-14)
    # the seam
    np.testing.assert_allclose(
        renyi(log_w, alpha=1.0 - 0.99e-4), renyi(log_w, alpha=1.0 - 1.01e-4), rtol=1e-4
    )
    np.testing.assert_allclose(renyi(log_w, alpha=-1e4), vi.bounds.vr_max(log_w), rtol=1e-3)
    values = np.array(
        [renyi(log_w, alpha=a) for a in (-5.0, -1.0, 0.0, 0.5, 0.9999999, 1.0, 2.0, 5.0)]
    )
    assert np.all(np.diff(values) < 0)
    with pytest.raises(ValueError, match="finite alpha"):
        renyi(log_w, alpha=-math.inf)


def test_vr_iwae_is_renyi_where_that_is_a_lower_bound():
    log_w = log_weights(30)
    assert vi.bounds.vr_iwae(log_w, alpha=0.3) == vi.bounds.renyi(log_w, alpha=0.3)
    for alpha in (-0.1, 1.0):
        with pytest.raises(ValueError, match="0 <= alpha < 1"):
            vi.bounds.vr_iwae(log_w, alpha=alpha)


@pytest.mark.integration
def test_the_upper_bounds_are_above_iwae_on_the_same_draws():
    for seed in range(20):
        log_w = log_weights(25, seed)
        assert vi.bounds.eubo(log_w) > iwae(log_w)
        assert vi.bounds.tvo_upper(log_w) > iwae(log_w) > vi.bounds.tvo(log_w)
        assert vi.bounds.cubo(log_w) > iwae(log_w)
    with pytest.raises(ValueError, match="order >= 1"):
        vi.bounds.cubo(log_w, order=0.5)


@pytest.mark.integration
def test_bounds_bracket_a_known_evidence_in_expectation():
    # w log-normal, log w ~ N(-s^2/2, s^2): log p = 0, ELBO -s^2/2, EUBO s^2/2, CUBO_2 s^2/2, and
    # TVO between
    spread = 0.8
    log_w = jnp.asarray(spread * normal(10, 400, 2_000) - spread**2 / 2, jnp.float32)
    assert_mean(jax.vmap(elbo)(log_w), -(spread**2) / 2)
    for upper, exact in ((vi.bounds.eubo, spread**2 / 2), (vi.bounds.cubo, spread**2 / 2)):
        values = np.asarray(jax.vmap(upper)(log_w))
        assert values.mean() > 5 * values.std() / len(values) ** 0.5
        assert abs(values.mean() - exact) < 0.03  # biased at finite K: the size of it at K = 2,000
    # E_{pi_b}[log w] = s^2 (b - 1/2): Riemann sums on this line
    betas = np.array(vi.bounds.tvo_schedule(5, first=0.1))
    heights = spread**2 * (betas - 0.5)
    widths = np.diff(betas)
    for sums, expected in (
        (vi.bounds.tvo, heights[:-1] @ widths),
        (vi.bounds.tvo_upper, heights[1:] @ widths),
    ):
        values = np.asarray(jax.vmap(lambda row, sums=sums: sums(row, betas=tuple(betas)))(log_w))
        assert abs(values.mean() - expected) < 0.01


def test_tvo_with_two_temperatures_is_the_elbo_and_the_eubo(x64):
    log_w = jnp.asarray(normal(11, 20))
    np.testing.assert_allclose(vi.bounds.tvo(log_w, betas=(0.0, 1.0)), elbo(log_w), rtol=1e-13)
    np.testing.assert_allclose(
        vi.bounds.tvo_upper(log_w, betas=(0.0, 1.0)), vi.bounds.eubo(log_w), rtol=1e-13
    )
    assert vi.bounds.tvo_schedule(1) == (0.0, 1.0)
    for betas in ((0.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.1, 1.0)):
        with pytest.raises(ValueError, match="rise from 0 to 1"):
            vi.bounds.tvo(log_w, betas=betas)


@pytest.mark.parametrize("order", [1, 2])
def test_jackknife_equals_its_sum_over_subsets(order, x64):
    from itertools import combinations

    log_w = normal(12, 7) * 2.0
    means = [
        np.mean([np.log(np.mean(np.exp(log_w[list(s)]))) for s in combinations(range(7), 7 - j)])
        for j in range(order + 1)
    ]
    coefficients = [
        (-1) ** j * (7 - j) ** order / (math.factorial(order - j) * math.factorial(j))
        for j in range(order + 1)
    ]
    np.testing.assert_allclose(sum(coefficients), 1.0, rtol=1e-12)  # it keeps constants
    np.testing.assert_allclose(
        vi.bounds.jackknife(jnp.asarray(log_w), order=order),
        np.dot(coefficients, means),
        rtol=1e-10,
    )
    with pytest.raises(ValueError, match="more samples"):
        vi.bounds.jackknife(jnp.zeros(order), order=order)


@pytest.mark.integration
def test_jackknife_removes_bias():
    spread = 0.8
    log_w = jnp.asarray(spread * normal(13, 40_000, 8) - spread**2 / 2, jnp.float32)
    bias = [
        float(jax.vmap(lambda row, m=m: vi.bounds.jackknife(row, order=m))(log_w).mean())
        for m in (0, 1, 2)
    ]
    assert abs(bias[1]) < 0.4 * abs(bias[0])
    assert abs(bias[2]) < abs(bias[1])


@pytest.mark.integration
def test_sumo_telescopes_to_the_longest_bound_and_is_unbiased(x64):
    log_w = jnp.asarray(normal(14, 10))
    np.testing.assert_allclose(
        vi.bounds.sumo(log_w, stop=0.0, first=4), iwae(log_w[:4]), rtol=1e-13
    )
    partial = np.array([iwae(log_w[: k + 1]) for k in range(10)])
    # over T with P(T >= t) = 1/t, t (L_{t+1} - L_t) counts each difference once
    draws = jax.vmap(vi.bounds.sumo_stop)(jax.random.split(jax.random.key(0), 20_000))
    assert draws.min() == 1
    for t in (2, 3, 8):
        assert abs(float((draws >= t).mean()) - 1 / t) < 5 * (1 / t / 20_000) ** 0.5
    values = jax.vmap(lambda stop: vi.bounds.sumo(log_w, stop=stop))(draws)
    assert_mean(values, partial[-1])
