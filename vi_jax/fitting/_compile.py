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
    return {"xla_backend_optimization_level": 0} if largest_array(target) <= SMALL else {}


def largest_array(target: Target) -> int:
    """Numbers in the largest array that the log density goes through."""
    u = jax.ShapeDtypeStruct((target.size,), jnp.result_type(float))
    return _largest(jax.make_jaxpr(target.log_density)(u).jaxpr)


def _largest(jaxpr: Any) -> int:
    """Numbers in the largest array of a program, the programs that it calls included."""
    sizes = [math.prod(getattr(var.aval, "shape", ())) for eqn in jaxpr.eqns for var in [*eqn.invars, *eqn.outvars]]
    params = [
        value for eqn in jaxpr.eqns for param in eqn.params.values() for value in (param if isinstance(param, tuple) else [param])
    ]
    called = [getattr(value, "jaxpr", value) for value in params]  # a closed one holds another
    return max([0, *sizes, *(_largest(inner) for inner in called if hasattr(inner, "eqns"))])


def traced_once(target: Target) -> Target:
    """The target with a density that JAX traces once: Python runs through a model of 200 sites in as many milliseconds, and a fit
    wants its program some ten times (value and gradient, at the start, in the loop, at the end)."""
    return target._replace(log_density=jax.jit(target.log_density))
