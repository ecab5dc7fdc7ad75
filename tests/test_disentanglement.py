"""The mutual information gap on latents that are the factors, or noise; the images made by their
factors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from command_helpers import made

import vi_jax as vi
from configs import disentangle
from experiments.data import load, shapes
from experiments.run import session
from vi_jax.diagnostics.disentanglement import factor_information, information_gap

VALUES = (3, 4, 5)
FACTORS = np.indices(VALUES).reshape(3, -1).T  # every combination, [60, 3]


def reading(latents, scale):
    """A model whose guide has its means at x @ latents, [3, D]."""
    weights = jnp.asarray(latents, jnp.float32)
    num = weights.shape[1]
    return vi.models.from_densities(
        lambda key: {},
        lambda params, x: dist.Normal(x @ weights, scale).to_event(1),
        lambda params, x: dist.Normal(jnp.zeros(num), 1.0).to_event(1),
        lambda params, x, z: dist.Normal(x, 1.0),
        lambda params, x, z: dist.Normal(0.0, 1.0).log_prob(x).sum(),
    )


def gap_of(latents, scale=0.01, num_samples=60):
    model = reading(latents, scale)
    x = jnp.asarray(FACTORS, jnp.float32)
    found = jax.jit(
        lambda key: factor_information(
            key, model, {}, x, FACTORS, num_samples=num_samples, batch_size=16
        )
    )(jax.random.key(0))
    return np.asarray(found), information_gap(found, FACTORS)


def test_a_latent_for_each_factor_has_a_gap_of_one():
    information, gap = gap_of(np.eye(3)[:, [2, 0, 1]])
    np.testing.assert_allclose(gap.of_factor, 1.0, atol=1e-4)
    np.testing.assert_allclose(gap.mean, 1.0, atol=1e-4)
    assert gap.latent.tolist() == [1, 2, 0]
    expected = np.zeros((3, 3))
    expected[[1, 2, 0], [0, 1, 2]] = np.log(VALUES)
    np.testing.assert_allclose(information.mean(0), expected, atol=1e-4)


@pytest.mark.integration
def test_noise_and_latents_that_share_a_factor_have_none():
    _, noise = gap_of(np.zeros((3, 4)), scale=1.0)
    np.testing.assert_allclose(noise.of_factor, 0.0, atol=1e-6)
    _, shared = gap_of(np.eye(3)[:, [0, 0, 1, 1, 2, 2]])
    np.testing.assert_allclose(shared.of_factor, 0.0, atol=1e-4)


@pytest.mark.integration
def test_information_of_wide_guides_is_that_of_the_mixtures():
    """Against the entropies of a mixture by quadrature."""
    information, _ = gap_of(np.eye(3), scale=1.0)
    grid = np.linspace(-8.0, 12.0, 4_001)
    for factor, num in enumerate(VALUES):
        each = np.exp(-0.5 * (grid - np.arange(num)[:, None]) ** 2) / np.sqrt(2 * np.pi)
        ratio = np.log(each) - np.log(each.mean(0))
        expected = np.trapezoid((each * ratio).mean(0), grid)
        own = information[:, factor, factor]
        assert abs(own.mean() - expected) < 5 * own.std() / 60**0.5


def test_what_has_no_gap_is_refused():
    with pytest.raises(ValueError, match="at least 2 latents"):
        information_gap(np.zeros((5, 1, 3)), FACTORS)
    with pytest.raises(ValueError, match="at least 2 values"):
        information_gap(np.zeros((5, 2, 3)), np.zeros((60, 3), int))
    with pytest.raises(ValueError, match=r"\[N, K\]"):
        factor_information(
            jax.random.key(0), reading(np.eye(3), 1.0), {}, jnp.zeros((4, 3)), FACTORS
        )


def test_every_combination_of_the_factors_is_there_once():
    grid = shapes.SMALL
    x = shapes.images(grid)
    numbers = shapes.factors(grid)
    assert x.shape == (7_680, 16, 16)
    assert x.dtype == np.uint8
    assert set(np.unique(x)) == {0, 1}
    assert len(np.unique(numbers, axis=0)) == 7_680
    assert tuple(numbers.max(0) + 1) == grid.num_values
    # a row down moves the image a row down, and a column likewise
    ours = x.reshape(*grid.num_values, 16, 16)
    np.testing.assert_array_equal(ours[:, :, :, 1:, :, 1:], ours[:, :, :, :-1, :, :-1])
    np.testing.assert_array_equal(ours[..., 1:, :, 1:], ours[..., :-1, :, :-1])
    # all of each shape is within the image, and larger scales are larger
    sprites = shapes.sprites(grid)
    np.testing.assert_array_equal(x.sum((1, 2)), np.repeat(sprites.sum((3, 4)).ravel(), 64))
    assert (np.diff(sprites.sum((3, 4)).mean(2), axis=1) > 0).all()
    # half a turn leaves squares and ellipses as they are, and not hearts
    turned = np.roll(sprites, 5, axis=2)
    np.testing.assert_array_equal(turned[:2], sprites[:2])
    assert (turned[2] != sprites[2]).any((1, 2, 3)).all()


def test_the_full_grid_has_the_sizes_that_are_documented():
    assert np.prod(shapes.FULL.num_values) == 184_320
    assert shapes.FULL.num_values == (3, 6, 40, 16, 16)
    assert shapes.FULL.reach == 8


@pytest.mark.integration
def test_factors_follow_their_images_into_the_splits():
    config = made(disentangle)
    dataset = load(config.data)
    assert [part.num for part in (dataset.train, dataset.validation, dataset.test)] == [
        6144,
        768,
        768,
    ]
    grid = shapes.SMALL
    for part in (dataset.train, dataset.test):
        rows = np.ravel_multi_index(part.factors.values.T, grid.num_values)
        np.testing.assert_array_equal(part.x, shapes.images(grid)[rows])
        np.testing.assert_array_equal(part.labels, part.factors.values[:, 0])


@pytest.mark.integration
def test_a_run_says_its_gap_with_and_without_the_shape():
    config = made(disentangle, model__network__hidden="(4,)", eval__num_samples=1)
    built = session.build_all(config)
    params = built.model.init(jax.random.key(0))
    summary = built.meter.measure(jax.random.key(1), params, built.x).summary
    assert set(summary["mig_of_factor"]) == set(shapes.NAMES)
    assert 0.0 <= summary["mig"]["mean"] < 0.2  # of parameters as they start
    titles = [row.title for row in built.meter.rows(summary)]
    assert {"MIG without shape", "MIG with shape"} <= set(titles)
    # a guide whose latents are not independent has none, and the rest is there
    config = made(
        disentangle, model__network__hidden="(4,)", model__family="full_rank", eval__num_samples=1
    )
    built = session.build_all(config)
    params = built.model.init(jax.random.key(0))
    measures = built.meter.measure(jax.random.key(1), params, built.x)
    assert "mig" not in measures.summary
    assert "elbo" in measures.summary
    assert len(built.meter.rows(measures.summary)) > 2
