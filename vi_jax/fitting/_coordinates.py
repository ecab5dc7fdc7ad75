"""Results that were fitted in other coordinates than the model's, there and back."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from vi_jax.fitting._compile import traced_once
from vi_jax.targets.recentring import RecentredGuide
from vi_jax.targets.target import Target


def in_model(result: Any, target: Target) -> Any:
    """A result over the coordinates of the model as it is written; its guide goes through them.

    Args:
      result: over those that it was fitted in.
      target: the one that was to be fitted.
    """
    moved = result.target.centring
    if moved is None:
        return result
    to_model = jax.jit(jax.vmap(moved.to_model))
    elsewhere = result.elsewhere
    if elsewhere is not None:
        elsewhere = (np.asarray(to_model(elsewhere[0])), elsewhere[1])
    return replace(
        result,
        target=target,
        guide=RecentredGuide(result.guide, moved.shares, moved.posterior),
        weighted=result.weighted._replace(u=to_model(result.weighted.u)),
        elsewhere=elsewhere,
    )


def as_fitted(result: Any) -> Any:
    """A result over the coordinates that it was fitted in."""
    q = result.guide
    if not isinstance(q, RecentredGuide):
        return result
    moved = q.moved
    recentred = result.target.recentring.at(q.shares, result.target)
    from_model = jax.jit(jax.vmap(lambda u: moved.from_model(u)[0]))
    elsewhere = result.elsewhere
    if elsewhere is not None:
        elsewhere = (np.asarray(from_model(elsewhere[0])), elsewhere[1])
    return replace(
        result,
        target=traced_once(recentred),
        guide=q.guide,
        weighted=result.weighted._replace(u=from_model(result.weighted.u)),
        elsewhere=elsewhere,
    )


def with_model(guide: Any, target: Any) -> Any:
    """A guide that was loaded from a folder, with the model that it goes through."""
    if not isinstance(guide, RecentredGuide) or target.recentring is None:
        return guide
    return replace(guide, posterior=target.recentring.posterior)
