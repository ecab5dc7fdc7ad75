"""Programs for XLA, made side by side."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.targets.target import Target

SMALL = 10_000  # numbers in the largest array of a log density that XLA need not optimise


def compiled(options: dict[str, Any], *programs: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Callable[..., Any]]:
    """Compiles functions for their arguments side by side: XLA takes its time without holding Python."""
    lowered = [jax.jit(f).lower(*args) for f, args in programs]
    with ThreadPoolExecutor(len(lowered)) as threads:
        return list(threads.map(lambda program: program.compile(compiler_options=options), lowered))


def compiler_options(target: Target) -> dict[str, Any]:
    """A density whose arrays are small runs for less time than XLA takes to optimise it on a CPU: let it not."""
    if jax.default_backend() != "cpu":
        return {}
    u = jax.ShapeDtypeStruct((target.size,), jnp.result_type(float))
    equations = jax.make_jaxpr(target.log_density)(u).eqns
    largest = max(
        (math.prod(getattr(var.aval, "shape", ())) for eqn in equations for var in [*eqn.invars, *eqn.outvars]), default=0
    )
    return {"xla_backend_optimization_level": 0} if largest <= SMALL else {}
