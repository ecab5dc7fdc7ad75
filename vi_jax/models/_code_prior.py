"""An autoregressive distribution over a row of codes, each one of K."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array, Params

EMBEDDING = 8  # numbers of a code as the network sees it


def init_code_prior(key: Array, num_positions: int, num_codes: int, width: int) -> Params:
    """Weights of variance 1 / fan-in, and a last layer of zeros: uniform at the start."""
    key_embedding, key_first, key_second = jax.random.split(key, 3)
    num_hidden = num_positions * width
    num_inputs = num_positions * EMBEDDING

    def weights(key: Array, num_in: int) -> Array:
        return jax.random.normal(key, (num_in, num_hidden)) / num_in**0.5

    return {
        "embedding": jax.random.normal(key_embedding, (num_codes, EMBEDDING)),
        "first": weights(key_first, num_inputs),
        "first_bias": jnp.zeros(num_hidden),
        "second": weights(key_second, num_hidden),
        "second_bias": jnp.zeros(num_hidden),
        "last": jnp.zeros((num_positions, width, num_codes)),
        "last_bias": jnp.zeros((num_positions, num_codes)),
    }


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CodePrior:
    """p(k_1) p(k_2 | k_1) ... over one-hot codes z [M, K], by two masked layers (MADE: Germain et
    al. 2015, sec. 4, with hidden units for each position and a last layer of its own for each).
    """

    params: Params  # of `init_code_prior`
    num_positions: int = field(metadata={"static": True})
    has_rsample = False

    def logits(self, z: Array) -> Array:
        """Of each code given those before it, [M, K]."""
        p = self.params
        width = p["last"].shape[1]
        before = _mask(self.num_positions, EMBEDDING, width, is_strict=True)
        up_to = _mask(self.num_positions, width, width, is_strict=False)
        h = jnp.tanh((z @ p["embedding"]).ravel() @ (p["first"] * before) + p["first_bias"])
        h = h + jnp.tanh(h @ (p["second"] * up_to) + p["second_bias"])
        by_position = h.reshape(self.num_positions, width)
        return jnp.einsum("mw,mwk->mk", by_position, p["last"]) + p["last_bias"]

    def log_probs(self, z: Array) -> Array:
        """log p(k_m | k_<m) of each position, nats, [M]."""
        return (z * jax.nn.log_softmax(self.logits(z))).sum(-1)

    def log_prob(self, value: Array) -> Array:
        """log p(z), nats, a scalar for one z."""
        return self.log_probs(value).sum()

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """One-hot codes, [*sample_shape, M, K]; a pass of the network for each position."""
        shape = self.params["last_bias"].shape
        positions = jnp.arange(self.num_positions)

        def one(noise: Array) -> Array:
            def add(z: Array, position: Array) -> tuple[Array, None]:
                # the largest of logits and Gumbel noise is a sample
                code = (self.logits(z) + noise)[position].argmax()
                return z.at[position].set(jax.nn.one_hot(code, shape[1], dtype=z.dtype)), None

            return jax.lax.scan(add, jnp.zeros(shape), positions)[0]

        num = int(np.prod(sample_shape, dtype=int))
        drawn = jax.vmap(one)(jax.random.gumbel(key, (num, *shape)))
        return drawn.reshape(*sample_shape, *shape)


def _mask(num_positions: int, num_in: int, num_out: int, *, is_strict: bool) -> Any:
    """Which inputs the outputs of a position see: those of the positions before it, and its own
    unless strict; [M num_in, M num_out].
    """
    sees = np.triu(np.ones((num_positions, num_positions), np.float32), k=int(is_strict))
    return np.kron(sees, np.ones((num_in, num_out), np.float32))
