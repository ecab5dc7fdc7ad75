"""Guides as NumPyro distributions, so that one posterior is the prior of the next experiment."""

from typing import Any, ClassVar

import jax
from numpyro.distributions import Distribution, constraints

Array = jax.Array


class GuideDistribution(Distribution):
    """A guide over real arrays, as a NumPyro distribution; made by `from_guide`."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("guide",)

    def __init__(self, guide: Any, *, event_shape: tuple[int, ...]) -> None:
        self.guide = guide
        super().__init__((), event_shape)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:
        return bool(getattr(self.guide, "has_rsample", False))

    @property
    def mean(self) -> Any:
        return self.guide.mean

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Samples [*sample_shape, *event_shape]."""
        return self.guide.sample(key, sample_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """log q(z), nats, [...] for z [..., *event_shape]."""
        del intermediates
        return self.guide.log_prob(value)


def from_guide(guide: Any) -> Distribution:
    """A guide over one real array as a NumPyro distribution, for `numpyro.sample(name, ...)` in a
    model that NUTS or `vi.fit` then takes.

    A result's guide is over the unconstrained coordinates u [D] of its target; `result.as_prior`
    gives a model the sites themselves.

    Args:
      guide: of `vi_jax.families`, or of a result; a NumPyro distribution is returned as it is.

    Raises:
      TypeError: it is no guide, or one over a pytree.
    """
    if isinstance(guide, Distribution):
        return guide
    if isinstance(guide, type) or not (hasattr(guide, "sample") and hasattr(guide, "log_prob")):
        raise TypeError(
            f"from_guide expects a guide, with sample and log_prob; got {type(guide).__name__}."
        )
    drawn = jax.eval_shape(guide.sample, jax.random.key(0))
    if not isinstance(drawn, jax.ShapeDtypeStruct):
        raise TypeError(
            "from_guide is for guides over one array; this one is over the pytree "
            f"{jax.tree.structure(drawn)}: take the family of a number of latents."
        )
    return GuideDistribution(guide, event_shape=drawn.shape)
