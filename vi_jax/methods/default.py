"""The default method of `fit`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.families import full_rank, mean_field
from vi_jax.methods import _structured
from vi_jax.methods.advi import advi
from vi_jax.methods.bam import bam
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.optimise import smoothness
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

# latents: at 500 `bam` takes 40 s of CPU in float32 and 70 s in float64, the density's own time
# aside
FULL_RANK_UP_TO = 400
STOCHASTIC_FULL_RANK_UP_TO = 50


class Choice(NamedTuple):
    """A method, and why it."""

    method: Method
    why: str
    evaluations: int = 0  # gradients that the choice took
    num_draws: int | None = None  # samples to weigh, where they should be more than usual
    otherwise: Method | None = None  # where the first has no finite answer


def choose(
    key: Array, target: Target, start: Array | None = None, *, num_starts: int = 1
) -> Choice:
    """By the number of latents, by whether data are subsampled, and above 400 latents by whether
    the log density is smooth; from there to 2,000 by the structure of its Hessian
    (`_structured.py`).

    `bam` matches gradients at samples and `advi` follows their mean, which a kink does not mislead;
    only `pathfinder` rests on curvature, so that smoothness is checked only there
    (`optimise/smoothness.py`). On a regression of 400 rows with 300 Laplace priors of rate 5 its
    means are up to 0.94 posterior standard deviations off and its ELBO is 22 nats below that of
    mean-field `advi`, whose means are off by up to 0.19. `bam_low_rank` had the better scales there
    (0.80 to 0.99 of the posterior's against 0.56 to 0.73) and the lower ELBO; on a logistic
    regression of 450 latents it ended below `pathfinder`: it is not a default.

    Args:
      key: of the fit; that of the locations that are looked at is folded from it.
      start: u [D] or [R, D], about which they lie; the origin if not given.
    """
    size = target.size
    if target.sampled is not None:
        if size <= STOCHASTIC_FULL_RANK_UP_TO:
            return Choice(advi(full_rank), f"minibatches; full rank, for {size} latents")
        return Choice(advi(mean_field), f"minibatches; mean field, for {size:,} latents")
    if size <= FULL_RANK_UP_TO:
        # each of several starts keeps to its own path, so that their agreement says something
        num_paths = 4 if num_starts == 1 else 1
        return Choice(bam(num_paths=num_paths), f"full rank, for {size} latents")
    centre = (
        jnp.zeros(size)
        if start is None
        else jnp.reshape(jnp.asarray(start, jnp.result_type(float)), (-1, size))[0]
    )
    found = smoothness.measured(jax.random.fold_in(key, 2), target.log_density, centre)
    if found is None:
        return Choice(
            pathfinder(), f"low rank, for {size:,} latents; whether it is smooth is not known"
        )
    rough = _rough(found)
    if rough:
        return Choice(
            advi(mean_field),
            f"mean field, for {size:,} latents; not smooth ({rough})",
            smoothness.NUM_GRADIENTS,
        )
    spent = smoothness.NUM_GRADIENTS
    if size > _structured.UP_TO:
        return Choice(pathfinder(), f"low rank, for {size:,} latents", spent)
    made = _structured.structured(jax.random.fold_in(key, 3), target, centre)
    spent += made.evaluations
    if made.method is None:
        return Choice(pathfinder(), f"low rank, for {size:,} latents; {made.why}", spent)
    return Choice(made.method, made.why, spent, made.num_draws, pathfinder())


def _rough(found: smoothness.Smoothness) -> str:
    """What is not smooth, in words; empty for nothing."""
    if found.step > 0:
        return f"it jumps by {float(found.step):.2g} nats, which no gradient sees"
    return f"its gradient jumps by {float(found.kink):.2g}" if found.kink > 0 else ""
