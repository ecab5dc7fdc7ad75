"""The fit of a hierarchy once more, in coordinates between centred and non-centred, where its first
answer is not reliable.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.fitting import _fallback
from vi_jax.fitting._compile import traced_once
from vi_jax.fitting.result import Result
from vi_jax.targets.recentring import describe
from vi_jax.targets.target import Target, TargetError
from vi_jax.types import Array

MOST_CENTRED = 0.9  # above this share everywhere the model's own coordinates are as good


def recentred(key: Array, first: Result, run: Callable[[Target], Result]) -> Result:
    """The first result, or where it is not reliable the better of it and one over other coordinates
    of its location-scale sites, which says so and counts both.

    Args:
      key: of the samples by which the coordinates are chosen.
      run: target -> Result.
    """
    found = first.target.recentring
    q: Any = first.guide
    is_poor = first.by_weights[0] == "not reliable"
    is_gaussian = isinstance(q, dist.MultivariateNormal)
    if found is None or not (is_poor and is_gaussian and _fallback.is_curable(first)):
        return first
    shares = found.shares(q, key)
    if not shares or all(float(jnp.min(share)) > MOST_CENTRED for share in shares.values()):
        return first
    what = describe(shares)
    was = _fallback.was(first)
    try:
        other = run(traced_once(found.at(shares, first.target)))
    except (FloatingPointError, TargetError) as error:
        return replace(first, fallback=f"{was}; {what} failed: {error}")
    other = replace(other, why=f"{first.why}; {what}")
    return _fallback.better(first, other, f"{was}; {what}, {other.evaluations:,} gradients,")
