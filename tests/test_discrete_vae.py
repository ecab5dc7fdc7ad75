"""The discrete VAE starts where its coins say something of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vi_jax import models

X_SHAPE = (4, 3)


def rows(num=200):
    """Rows of ones with different rates in each pixel."""
    rates = jnp.linspace(0.1, 0.9, 12).reshape(X_SHAPE)
    return jax.random.bernoulli(jax.random.key(1), rates, (num, *X_SHAPE))


def logits(model, params, x):
    """Of the guide's coins, for each row."""
    probs = jax.vmap(lambda one: model.densities.guide(params, one).mean)(x)
    return jnp.log(probs) - jnp.log1p(-probs)


@pytest.mark.parametrize("hidden", [(), (8, 5)])
def test_each_coin_is_spread_over_the_rows_at_the_start(hidden):
    x = rows()
    model = models.discrete_vae(X_SHAPE, num_latents=6, hidden=hidden, rows=x)
    values = logits(model, model.init(jax.random.key(0)), x)
    np.testing.assert_allclose(jnp.mean(values, 0), np.zeros(6), atol=1e-4)
    np.testing.assert_allclose(jnp.std(values, 0), np.ones(6), rtol=1e-3)


@pytest.mark.integration
def test_rows_that_do_not_differ_start_as_none_do():
    x = jnp.full((5, *X_SHAPE), 0.5)
    model = models.discrete_vae(X_SHAPE, num_latents=6, hidden=(4,), rows=x)
    values = logits(model, model.init(jax.random.key(0)), rows())
    assert np.isfinite(values).all()
    assert float(jnp.std(values)) < 0.2


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"rows.*\[N, 4, 3\].*\(5, 12\)"):
        models.discrete_vae(X_SHAPE, num_latents=6, rows=jnp.zeros((5, 12)))
