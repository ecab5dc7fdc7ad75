"""Where in the user's code a number comes from: the first equation that makes it, and implicit
outer products.
"""

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

_LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy", "flax")
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat",
    "remat2",
    "checkpoint",
)
_MATRIX_USES = ("cholesky", "triangular_solve", "dot_general", "lu", "eigh", "eig", "qr", "svd")


class Origin(NamedTuple):
    """The equation that first makes a bad number of good ones."""

    primitive: str
    line: str  # "file.py:12 (function)", or "?" where no line of the user's is known

    def __str__(self) -> str:
        return f"`{self.primitive}` at {self.line}"

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def first_bad(
    f: Callable[..., Any], args: tuple[Any, ...], bad: Callable[[Any], Any]
) -> Origin | None:
    """The first equation of f(*args) with a bad output and no bad input; None if there is none.

    Loops are unrolled while tracing and compiled functions are traced afresh, so that lines are
    those of this call.
    """
    try:
        with jax.disable_jit():
            closed = jax.make_jaxpr(f)(*args)
    except Exception:  # a loop whose length is only known while it runs
        closed = jax.make_jaxpr(f)(*args)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
    return _walk(closed.jaxpr, closed.consts, leaves, lambda value: _is(bad, value))[1]


def _is(bad: Callable[[Any], Any], value: Any) -> bool:
    floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    return bool(jnp.any(bad(value))) if floating else False


def _walk(
    jaxpr: Any, consts: Any, args: Any, bad: Callable[[Any], bool]
) -> tuple[list[Any], Origin | None]:
    """Runs a jaxpr equation by equation up to the first bad one."""
    values: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
    )

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = (
            eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
            if eqn.primitive.name in _CALLS
            else None
        )
        if inner is not None:
            body = getattr(inner, "jaxpr", inner)
            consts = getattr(inner, "consts", ())
            outputs, origin = _walk(body, consts, inputs, bad)
            if origin is not None:
                return [], origin if origin.line != "?" else Origin(origin.primitive, _line(eqn))
        else:
            outputs = _run(eqn, inputs)
            if any(map(bad, outputs)) and not any(map(bad, inputs)):
                return [], Origin(eqn.primitive.name, _line(eqn))
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars], None


def _run(eqn: Any, inputs: list[Any]) -> list[Any]:
    with eqn.ctx.manager:
        outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _line(eqn: Any) -> str:
    """The innermost line that is neither a library's nor of this package's checks."""
    own = [
        _split(sys.modules[name].__file__ or "")[0] for name in _LIBRARIES if name in sys.modules
    ]
    ours = _split(__file__)[0]
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if frame.file_name.startswith(tuple(own)) or "importlib" in frame.file_name:
            continue
        folder, name = _split(frame.file_name)
        if folder != ours:
            return f"{name}:{frame.line_num} ({frame.function_name})"
        if name == "check.py":  # the innermost line is the call of the user's function
            return "?"
    return "?"


def _split(path: str) -> tuple[str, str]:
    """The folder of a file, with its last separator, and its name."""
    cut = max(path.rfind("/"), path.rfind("\\")) + 1
    return path[:cut], path[cut:]


def same_trace(f: Callable[..., Any], *args: Any) -> bool:
    """Whether f is the same program with the same constants when it is traced again."""
    first, again = (jax.make_jaxpr(lambda *args: f(*args))(*args) for _ in range(2))
    texts = [re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)) for closed in (first, again)]
    if texts[0] != texts[1] or len(first.consts) != len(again.consts):
        return False
    return all(x is y or _equal(x, y) for x, y in zip(first.consts, again.consts, strict=True))


def _equal(x: Any, y: Any) -> bool:
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
        x = jax.random.key_data(x)
        y = jax.random.key_data(y)
    return np.array_equal(
        np.asarray(x),
        np.asarray(y),
        equal_nan=bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact)),
    )


class Promotion(NamedTuple):
    """An implicit [N] with [N, 1], which makes [N, N]."""

    operation: str
    size: int


def outer_products(f: Callable[..., Any], *args: Any) -> list[Promotion]:
    """Operations of f on an [N] and an [N, 1] that NumPy's rank promotion makes [N, N], unless that
    is used as a matrix.
    """
    with jax.numpy_rank_promotion("warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jaxpr = jax.make_jaxpr(lambda *args: f(*args))(*args).jaxpr
    found = []
    for record in caught:
        match = re.search(
            r"rank promotion for (\w+) on shapes \((\d+),\) \((\d+), (\d+)\)",
            _sorted_shapes(str(record.message)),
        )
        if match and match[2] == match[3] and match[4] == "1" and int(match[2]) > 1:
            found.append(Promotion(match[1], int(match[2])))
    return [p for p in dict.fromkeys(found) if not _used_as_matrix(jaxpr, p.size)]


def _sorted_shapes(message: str) -> str:
    """The message with the shape of lower rank first."""
    return re.sub(r"on shapes (\(\d+, \d+\)) (\(\d+,\))", r"on shapes \2 \1", message)


def _used_as_matrix(jaxpr: Any, size: int) -> bool:
    for eqn in jaxpr.eqns:
        shapes = [getattr(atom.aval, "shape", ()) for atom in eqn.invars]
        if eqn.primitive.name in _MATRIX_USES and any(
            shape[-2:] == (size, size) for shape in shapes
        ):
            return True
        inner = [
            getattr(value, "jaxpr", value) for value in jax.tree.leaves(list(eqn.params.values()))
        ]
        if any(_used_as_matrix(body, size) for body in inner if hasattr(body, "eqns")):
            return True
    return False
