"""How much XLA does to a program before it runs, on a CPU: less for evaluations, which are compiled
for a few calls, than for importance samples, and less for these than for training.
"""

import os
from collections.abc import Callable
from typing import Any

import jax

from experiments.startup import LEVEL, SECOND_LEVEL
from vi_jax.fitting._compile import quick_loops


def of_evaluations() -> dict[str, Any]:
    """`compiler_options` of `jax.jit` for the programs of an evaluation: the first level, and loops
    without MLIR. None on another backend than the CPU, or where XLA_FLAGS names another level than
    the one that the commands choose.
    """
    return {LEVEL: 1, **quick_loops()} if _is_ours() else {}


def of_importance_samples() -> dict[str, Any]:
    """The same for log p(x) by thousands of samples, which stay at the level of the commands."""
    return quick_loops() if _is_ours() else {}


def jit_evaluation(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for a program that an evaluation or a figure calls a few times."""
    return jax.jit(function, compiler_options=of_evaluations())


def _is_ours() -> bool:
    """Whether this is a CPU, and the level the one that the commands chose."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    is_named = [flag for flag in flags if LEVEL in flag] == [SECOND_LEVEL]
    return is_named and jax.default_backend() == "cpu"
