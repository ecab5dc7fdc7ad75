"""Which method `fit` takes when none is given."""

from vi_jax.families import full_rank, mean_field
from vi_jax.methods.advi import advi
from vi_jax.methods.bam import bam
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.targets.target import Target
from vi_jax.types import Method

FULL_RANK_UP_TO = 200  # latents
STOCHASTIC_FULL_RANK_UP_TO = 50


def choose(target: Target, *, num_starts: int = 1) -> tuple[Method, str]:
    """A method, and why it. Of several starts each keeps to its own path, so that their agreement says something."""
    if target.sampled is not None:
        if target.size <= STOCHASTIC_FULL_RANK_UP_TO:
            return advi(full_rank), f"minibatches; full rank, for {target.size} latents"
        return advi(mean_field), f"minibatches; mean field, for {target.size:,} latents"
    if target.size <= FULL_RANK_UP_TO:
        return bam(num_paths=4 if num_starts == 1 else 1), f"full rank, for {target.size} latents"
    return pathfinder(), f"low rank, for {target.size:,} latents"
