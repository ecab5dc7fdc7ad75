"""Memory that does not grow with the work: importance samples in chunks, and the slopes that
benchmarks.growth fits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evals import evidence
from vi_jax.models import vae

growth = pytest.importorskip("benchmarks.growth")


def temporary_bytes(num_samples, chunk):
    """Of the program that `experiments.evaluate` runs, for 16 examples at a time."""
    model = vae((28, 28), num_latents=5, hidden=(50,))
    program = evidence.make_program(model, num_samples // chunk, chunk)
    shapes = (
        jax.eval_shape(model.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((16, 28, 28), jnp.float32),
    )
    with jax.debug_key_reuse(False):  # it takes the keys of a scan inside a vmap for used ones
        totals = jax.eval_shape(lambda: evidence.no_sums(16, num_samples))
        keys = jax.random.split(jax.random.key(1), 16)
        compiled = program.lower(totals, keys, *shapes, np.int32(0), np.int32(1)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.integration
def test_log_evidence_of_5000_draws_fits_where_that_of_100_does():
    of = {k: temporary_bytes(k, evidence.chunk_for(k)) for k in (100, 5_000)}
    at_once = temporary_bytes(5_000, 5_000)
    assert of[5_000] < 1.05 * of[100]
    assert at_once > 20 * of[5_000]


def test_the_exponent_is_that_of_the_upper_half():
    sizes = [1, 2, 4, 8, 16, 32]
    seconds = [1.0, 1.0, 1.0, 3 * 8.0**1.5, 3 * 16.0**1.5, 3 * 32.0**1.5]
    slope, stderr = growth.exponent(sizes, seconds)
    np.testing.assert_allclose(slope, 1.5, rtol=1e-12)
    np.testing.assert_allclose(stderr, 0.0, atol=1e-7)
