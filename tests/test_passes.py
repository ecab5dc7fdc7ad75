"""The loop of passes that fixed points of chains share, on one number; and that of states and path
on counts.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cvi import expected_of, rotating, rotation

import vi_jax as vi
from vi_jax import chains
from vi_jax.chains import Emission, Regimes, linear_sites, passes, switching
from vi_jax.models.table_vae import Column

PEAK = 3.0
NUM_STEPS = 14
NUM_UNITS = 10


def ascent(pull, *, start=0.0, narrow=1.0, modes=2.0, num_passes=2, lowest=-np.inf, wall=np.inf):
    """Of -(x - 3)^2, which is nan beyond a wall, by steps that go `pull` times the whole way."""

    def try_at(x):
        value = jnp.where(jnp.abs(x) < wall, -((x - PEAK) ** 2), jnp.nan)
        return passes.Tried(x, x + pull * (PEAK - x), x, value, jnp.zeros(()))

    starts = passes.Starts(
        jnp.float32(start),
        jnp.float32(lowest),
        jnp.float32(narrow),
        lambda asked, x: jnp.where(asked, modes, x),
    )
    return jax.jit(lambda: passes.ascend(try_at, starts, num_passes))()


@pytest.mark.parametrize("pull", [0.5, 1.0, 1.9, 2.5, 7.0, -0.5])
@pytest.mark.parametrize("num_passes", [2, 5])
def test_more_passes_never_lose(pull, num_passes):
    """Whether full steps converge, overshoot, or go the wrong way, where the start stays."""
    fewer = ascent(pull, num_passes=num_passes)
    more = ascent(pull, num_passes=num_passes + 3)
    assert more.best.elbo >= fewer.best.elbo >= -(PEAK**2)
    assert fewer.gain >= 0.0
    if pull > 0.0:
        assert fewer.best.elbo > -0.1
        assert fewer.gain <= passes.MAX_GAIN


def test_passes_go_on_until_they_gain_nothing_and_end():
    slow = ascent(0.01)
    assert slow.gain > passes.MAX_GAIN
    expected = PEAK * (1.0 - 0.99 ** (passes.MAX_PASSES - 1))
    np.testing.assert_allclose(slow.best.result, expected, rtol=1e-4)
    quick = ascent(0.7)
    assert 0.0 < quick.gain <= passes.MAX_GAIN


def test_a_start_that_fails_is_begun_anew():
    """At the narrow one, and at modes where these are better; nan is a failure, too."""
    for options in ({"lowest": -5.0}, {"start": -20.0, "wall": 10.0}):
        for narrow, modes in ((2.9, 40.0), (40.0, 2.9)):
            found = ascent(-1e-4, narrow=narrow, modes=modes, **options)
            np.testing.assert_allclose(found.best.result, 2.9, rtol=1e-6)
    kept = ascent(-1e-4, start=2.5, narrow=2.9, modes=2.9, lowest=-5.0)
    np.testing.assert_allclose(kept.best.result, 2.5, rtol=1e-6)


# --- states and path


def regimes_of(cov=1.0):
    """Two rotations."""
    turns = [rotation(0.3), rotation(-0.2)]
    log_moves = np.log([[0.9, 0.1], [0.1, 0.9]])
    eye = np.eye(2)
    noise = np.stack([0.02 * eye, 0.05 * eye])
    start = np.log([0.5, 0.5])
    return Regimes(start, log_moves, np.zeros(2), cov * eye, np.stack(turns), 0.1 * eye, noise)


def given_of(dtype, *, base=0.5, loading=0.5, cov=1.0):
    """Regimes, an emission, counts and which are observed."""
    counts, *own = rotating(base, loading=loading, num_steps=NUM_STEPS, num_units=NUM_UNITS)
    observed = np.random.default_rng(1).random(counts[0].shape) < 0.8
    given = (regimes_of(cov), Emission(*own), counts[0])
    return *jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given), jnp.asarray(observed)


@functools.partial(jax.jit, static_argnums=4)
def found_of(regimes, emission, counts, observed, num_passes=4):
    expected = expected_of(jnp.where(observed, counts, 0.0))
    return chains.fit_states(regimes, emission, expected, observed, num_passes=num_passes)


@jax.jit
def plain_elbo(regimes, emission, counts, observed):
    """After each of 60 full passes of coordinate ascent, whatever they do."""
    expected = expected_of(counts)

    def one(carry, _):
        (sites, potentials) = carry
        states = chains.StateChain(regimes.log_start, regimes.log_transition, potentials)
        (probs, _, log_z) = states.moments()
        chain, more, constant = switching.expected_chain(regimes, probs)
        moments, _ = chains.smooth(chain, jax.tree.map(jnp.add, sites, more))
        at = linear_sites.at_predictors(emission, expected, observed, moments)
        path = chains.expected_log_sites(sites, moments) - moments.log_z - constant
        of_states = jnp.sum(probs * potentials) - log_z
        new = (
            linear_sites.sites_of(emission, at, moments),
            chains.expected_moves(regimes, moments),
        )
        return new, at.value.sum() - path - of_states

    zeros = jnp.zeros((NUM_STEPS, 2)), jnp.zeros((NUM_STEPS, 2, 2))
    start = (chains.Sites(*zeros), jnp.zeros((NUM_STEPS - 1, 2)))
    return jax.lax.scan(one, start, None, length=60)[1]


@pytest.mark.integration
def test_states_and_path_are_where_plain_passes_converge():
    """And garbage behind the mask changes no bit."""
    given = given_of(jnp.float32)
    found = found_of(*given)
    plain = plain_elbo(*given)
    assert abs(plain[-1] - plain[-2]) < 1e-3
    np.testing.assert_allclose(found.elbo, plain[-1], rtol=1e-5)
    assert found.gain <= passes.MAX_GAIN + 1e-3
    (regimes, emission, counts, observed) = given
    other = found_of(regimes, emission, jnp.where(observed, counts, jnp.nan), observed)
    jax.tree.map(np.testing.assert_array_equal, found, other)
    # a wide prior, at whose moments rates are beyond all numbers
    wide = dict(base=0.1, loading=1.2, cov=60.0)
    with jax.enable_x64(True):
        exact = found_of(*given_of(jnp.float64, **wide))
        assert exact.gain <= passes.MAX_GAIN
    found = found_of(*given_of(jnp.float32, **wide))
    np.testing.assert_allclose(found.elbo, exact.elbo, rtol=1e-4)


@pytest.mark.integration
def test_the_gradient_of_states_and_path_is_that_of_the_elbo():
    """By differences, through the whole fixed point (the envelope theorem)."""
    sizes = dict(num_latents=2, num_states=2, num_passes=60)
    with jax.enable_x64(True):
        model = vi.models.slds([Column("poisson")] * NUM_UNITS, **sizes)
        (_, emission, counts, observed) = given_of(jnp.float64)
        x = {"values": counts, "observed": observed}
        params = model.init(jax.random.key(0)) | emission._asdict()
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        rng = np.random.default_rng(0)
        way = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), params)

        @jax.jit
        def along(length):
            moved = jax.tree.map(lambda leaf, step: leaf + length * step, params, way)
            terms = model.terms(None, moved, x)
            return terms.log_lik - terms.kl["path"] - terms.kl["states"]

        slope = jax.jit(jax.grad(along))(0.0)
        difference = (along(1e-5) - along(-1e-5)) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=1e-5)
