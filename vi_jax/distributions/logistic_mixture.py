"""Mixtures of discretised logistics over the channels of a pixel, coupled, for colour images."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from vi_jax.distributions.discretized_logistic import DiscretizedLogistic

Array = jax.Array


class LogisticMixture(dist.Distribution):
    """Levels 0..L - 1 of C channels of each pixel by K components, which a pixel's channels share
    (Salimans et al. 2017, sec. 2.1 and 2.2).

        p(x_1 .. x_C) = sum_k pi_k prod_c Logistic_L(x_c; loc_kc + sum_{b<c} a_kcb (x_b - m), s_kc),

    m the middle of the levels. `log_prob` is by element, log p(x_c | x_1 .. x_{c-1}) of each
    channel, so that the sum over elements is that of the pixels.

    Args:
      logits: of the components, [..., K].
      loc: in levels, [..., C, K].
      scale: in levels, positive, [..., C, K].
      coupling: a, [..., C, C, K], of channel c by channel b; what is not below the diagonal is not
        looked at. None: none.
      num_levels: L.
      shape: of x, whose elements by rows are those of [..., C], the channels fastest; [..., C] if
        not given.

    Raises:
      ValueError: x of `shape` has another number of elements.
    """

    arg_constraints = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    pytree_data_fields = ("logits", "loc", "scale", "coupling")
    pytree_aux_fields = ("num_levels",)

    def __init__(
        self,
        logits: Array,
        loc: Array,
        scale: Array,
        coupling: Array | None = None,
        *,
        num_levels: int = 256,
        shape: tuple[int, ...] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.logits = jnp.asarray(logits)
        self.loc = jnp.asarray(loc)
        self.scale = jnp.asarray(scale)
        self.coupling = coupling
        self.num_levels = num_levels
        of_x = self.loc.shape[:-1] if shape is None else tuple(shape)
        if jnp.zeros(of_x).size * self.logits.shape[-1] != self.loc.size:
            raise ValueError(
                f"LogisticMixture expects a shape of as many elements as loc has, {self.loc.shape} "
                f"without its last axis; got {of_x}."
            )
        super().__init__(batch_shape=of_x, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..L - 1."""
        return constraints.integer_interval(0, self.num_levels - 1)

    @property
    def num_channels(self) -> int:
        """C."""
        return self.loc.shape[-2]

    def _component(self, channel: int, before: list[Array]) -> tuple[Array, Array]:
        """loc and scale [..., K] of a channel, given the channels before it, [..., K] or [..., 1]
        each.
        """
        loc = self.loc[..., channel, :]
        if self.coupling is not None:
            middle = (self.num_levels - 1) / 2.0
            for other, x in enumerate(before):
                loc = loc + self.coupling[..., channel, other, :] * (x - middle)
        return loc, self.scale[..., channel, :]

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log p(x_c | x_1 .. x_{c-1}) for levels, of the shape of x."""
        value = jnp.asarray(value)
        rank = value.ndim - len(self.batch_shape)
        x = value.reshape(*value.shape[:rank], *self.loc.shape[:-1])
        joint = jax.nn.log_softmax(self.logits)
        before = jnp.zeros(())
        found = []
        seen: list[Array] = []
        for channel in range(self.num_channels):
            x_c = x[..., channel, None]
            (loc, scale) = self._component(channel, seen)
            joint = joint + DiscretizedLogistic(loc, scale, self.num_levels).log_prob(x_c)
            total = jax.nn.logsumexp(joint, -1)
            found.append(total - before)
            before = total
            seen.append(x_c)
        return jnp.stack(found, -1).reshape(value.shape)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Levels as floats, [*sample_shape, *shape]."""
        key_k, *keys = jax.random.split(key, 1 + self.num_channels)
        which = jax.random.categorical(
            key_k, self.logits, shape=(*sample_shape, *self.logits.shape[:-1])
        )
        chosen = jax.nn.one_hot(which, self.logits.shape[-1])
        drawn: list[Array] = []
        for channel, key_c in enumerate(keys):
            (loc, scale) = self._component(channel, drawn)
            own_loc = (chosen * loc).sum(-1)
            own_scale = (chosen * scale).sum(-1)
            one = DiscretizedLogistic(own_loc, own_scale, self.num_levels)
            drawn.append(one.sample(key_c)[..., None])
        return jnp.concatenate(drawn, -1).reshape(*sample_shape, *self.batch_shape)

    @property
    def mean(self) -> Array:
        """E[x], exact without coupling; otherwise to the first order in the channels before."""
        return self._moments()[0]

    @property
    def variance(self) -> Array:
        """E[(x - E[x])^2], as exact as the mean."""
        return self._moments()[1]

    def _moments(self) -> tuple[Array, Array]:
        """Mean and variance of each element."""
        pi = jax.nn.softmax(self.logits)
        of_components: list[Array] = []
        means = []
        variances = []
        for channel in range(self.num_channels):
            (loc, scale) = self._component(channel, of_components)
            one = DiscretizedLogistic(loc, scale, self.num_levels)
            of_components.append(one.mean)
            mean = (pi * one.mean).sum(-1)
            means.append(mean)
            spread = one.variance + (one.mean - mean[..., None]) ** 2
            variances.append((pi * spread).sum(-1))
        (mean, variance) = (jnp.stack(each, -1) for each in (means, variances))
        return mean.reshape(self.batch_shape), variance.reshape(self.batch_shape)
