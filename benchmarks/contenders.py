"""All the contenders, in the order of the table."""

from benchmarks import (
    contenders_flax,
    contenders_jax,
    contenders_numpyro,
    contenders_torch,
    contenders_vi,
)
from benchmarks.problem import Contender

CONTENDERS = (
    contenders_vi.VI_JAX,
    contenders_jax.HAND_LOOP,
    contenders_jax.HAND_JIT,
    contenders_numpyro.NUMPYRO_SCAN,
    contenders_numpyro.NUMPYRO_JIT,
    contenders_flax.FLAX,
    contenders_torch.TORCH_EAGER,
    contenders_torch.TORCH_COMPILED,
    contenders_jax.PRODUCTS,
)


def by_name(name: str) -> Contender:
    """The contender of that name."""
    return next(contender for contender in CONTENDERS if contender.name == name)
