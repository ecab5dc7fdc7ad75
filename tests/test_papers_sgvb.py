"""SGVB-A and B: gradients of one mean, B's of less variance."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import normal

import vi_jax as vi

sgvb = pytest.importorskip("benchmarks.papers_sgvb")
papers_page = importlib.import_module("benchmarks.papers_page")


@pytest.mark.integration
def test_both_have_one_mean_and_b_the_lower_variance_in_the_encoder(no_key_check):
    model = vi.models.vae((6,), num_latents=2, hidden=(8,))
    x = jnp.asarray(normal(0, 200, 6) + normal(1, 200, 1) > 0, jnp.float32)
    params, _ = vi.train(
        jax.random.key(0),
        model,
        vi.losses.negative_elbo(model),
        optax.adam(1e-2),
        x,
        num_steps=300,
        batch_size=50,
    )
    rows = sgvb.compare(jax.random.key(1), model, params, x[:50], 300, num_samples=2000)
    (encoder, decoder) = rows
    assert encoder.part == "encoder"
    assert encoder.b < 0.95 * encoder.a
    np.testing.assert_allclose(decoder.a, decoder.b, rtol=0.15)  # the KL is not of the decoder
    for row in rows:
        assert row.distance < 2.0


def test_the_moments_are_those_of_the_gradients(no_key_check):
    """Of a loss whose gradient is its noise: mean 0, variance 1."""

    def loss(params, key, batch, step):
        noise = jax.random.normal(key, (3,))
        value = (params["encoder"] * noise).sum() + (params["decoder"] * batch).sum()
        return value, vi.losses.Info({}, params)

    params = {"encoder": jnp.ones(3), "decoder": jnp.ones(2)}
    found = sgvb.moments(jax.random.key(0), loss, params, jnp.arange(2.0), num_samples=1000)
    np.testing.assert_allclose(found["encoder"].mean, 0.0, atol=0.15)
    np.testing.assert_allclose(found["encoder"].variance, 1.0, rtol=0.2)
    np.testing.assert_array_equal(found["decoder"].mean, [0.0, 1.0])
    np.testing.assert_allclose(found["decoder"].variance, 0.0, atol=1e-9)


def test_the_table_has_each_row():
    row = sgvb.Compared(100, "encoder", 30.0, 10.0, 1.02)
    text = sgvb.describe([row])
    assert "| 100 | encoder | 30.0 | 10.0 | **3.00** | 1.02 |" in text
    assert "<!-- sgvb: begin -->" in papers_page.PAGE.read_text()
