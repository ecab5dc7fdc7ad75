"""How much XLA does to a program before it runs, on a CPU: less for evaluations, which are compiled
for a few calls, than for training.
"""

import os
from typing import Any

import jax

from experiments.startup import LEVEL, SECOND_LEVEL


def of_evaluations() -> dict[str, Any]:
    """`compiler_options` of `jax.jit` for the programs of an evaluation: the first level, and loops
    without MLIR. None on another backend than the CPU, or where XLA_FLAGS names another level than
    the one that the commands choose.
    """
    from vi_jax.fitting._compile import quick_loops

    if jax.default_backend() != "cpu" or not _is_ours():
        return {}
    return {LEVEL: 1, **quick_loops()}


def _is_ours() -> bool:
    """Whether the level is the one that the commands chose."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return [flag for flag in flags if LEVEL in flag] == [SECOND_LEVEL]
