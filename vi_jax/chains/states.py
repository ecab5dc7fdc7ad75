"""Hidden Markov chains of states, given log-potentials: forwards and backwards in log space."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array


class StateMoments(NamedTuple):
    """Marginals of a chain of S states out of K."""

    probs: Array  # P(k_s), [S, K]
    moves: Array  # sum over s of P(k_s, k_(s+1)), [K, K]
    log_z: Array  # nats, []


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StateChain:
    """p(k) prod_s exp(potentials[s, k_s]) / Z over k [S] of 0..K-1: a Markov chain given evidence,
    or with potentials of 0 the chain itself.
    """

    log_start: Array  # log P(k_1), [K]
    log_transition: Array  # log P(k_(s+1) | k_s), [K, K], rows k_s
    potentials: Array  # nats, [S, K], S at least 1

    has_rsample = False
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(S,)."""
        return self.potentials.shape[:1]

    def moments(self) -> StateMoments:
        """Marginals by forward and backward messages (Rabiner 1989, sec. III)."""
        messages = self._messages()
        ahead = self.log_transition + (messages + self.potentials)[1:, None]  # [S - 1, K, K]

        def step(log_p: Array, ahead: Array) -> tuple[Array, tuple[Array, Array]]:
            pair = log_p[:, None] + jax.nn.log_softmax(ahead, axis=1)
            following = jax.nn.logsumexp(pair, axis=0)
            return following, (following, jnp.exp(pair))

        first = self.log_start + self.potentials[0] + messages[0]
        log_z = jax.nn.logsumexp(first)
        _, (rest, pairs) = jax.lax.scan(step, first - log_z, ahead)
        log_probs = jnp.concatenate([(first - log_z)[None], rest])
        return StateMoments(jnp.exp(log_probs), pairs.sum(0), log_z)

    @property
    def mean(self) -> Array:
        """P(k_s), [S, K]."""
        return self.moments().probs

    @property
    def log_z(self) -> Array:
        """log E_p[prod_s exp(potentials[s, k_s])], nats."""
        return self.moments().log_z

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, S], int32."""
        messages = self._messages()
        ahead = self.log_transition + (messages + self.potentials)[1:, None]
        first = self.log_start + self.potentials[0] + messages[0]
        uniform_shape = (*sample_shape, *self.potentials.shape)
        noise = jax.random.gumbel(key, uniform_shape, self.potentials.dtype)
        noise = jnp.moveaxis(noise, -2, 0)  # [S, ..., K]
        start = jnp.argmax(first + noise[0], axis=-1).astype(jnp.int32)

        def step(before: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            (log_p, noise) = given
            state = jnp.argmax(log_p[before] + noise, axis=-1).astype(jnp.int32)
            return state, state

        _, rest = jax.lax.scan(step, start, (ahead, noise[1:]))
        return jnp.moveaxis(jnp.concatenate([start[None], rest]), 0, -1)

    def log_prob(self, value: Array) -> Array:
        """log of the probability of states [..., S], nats, [...]."""
        steps = jnp.arange(self.potentials.shape[0])
        own = self.potentials[steps, value].sum(-1)
        moved = self.log_transition[value[..., :-1], value[..., 1:]].sum(-1)
        return self.log_start[value[..., 0]] + moved + own - self.log_z

    def _messages(self) -> Array:
        """log of what the later potentials say of each k_s, [S, K]; of the last 0."""

        def step(after: Array, potential: Array) -> tuple[Array, Array]:
            message = jax.nn.logsumexp(self.log_transition + potential + after, axis=1)
            return message, message

        last = jnp.zeros_like(self.potentials[0])
        _, rest = jax.lax.scan(step, last, self.potentials[1:], reverse=True)
        return jnp.concatenate([rest, last[None]])
