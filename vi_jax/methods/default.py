"""Which method `fit` takes when none is given."""

from vi_jax.methods.bam import bam
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.targets.target import Target
from vi_jax.types import Method

FULL_RANK_UP_TO = 200  # latents


def choose(target: Target) -> tuple[Method, str]:
    """A method, and why it."""
    if target.size <= FULL_RANK_UP_TO:
        return bam(), f"full rank, for {target.size} latents"
    return pathfinder(), f"low rank, for {target.size:,} latents"
