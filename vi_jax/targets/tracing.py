"""Errors of tracing as one sentence: the line of a function that JAX cannot trace."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from vi_jax.targets.target import TargetError

# Python or NumPy asked a traced array for its numbers.
OF_TRACING = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_NOT_THE_USERS = ("jax", "jaxlib", "numpy", "numpyro", "vi_jax", "contextlib", "functools")


@contextmanager
def in_one_sentence(what: str) -> Iterator[None]:
    """Raises a TargetError that names the line where what is traced here needs a number that is not
    there yet.

    Args:
      what: the function that is traced, for the message.
    """
    try:
        yield
    except OF_TRACING as error:
        raise TargetError(
            f"{what} needs the value of a traced array{_place(error)}: JAX traces it once for "
            "all values, so stay in jax.numpy "
            "(jnp.where or lax.cond for an `if`; no float(), int(), bool() or NumPy of a "
            f"latent). ({first_line(error)})"
        ) from None


def first_line(error: BaseException) -> str:
    """Of an error's message, which JAX makes long; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _place(error: BaseException) -> str:
    """The innermost line that is of no library here, ` in FILE, line N (its text)`; nothing where
    there is none.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    lines = traceback.extract_tb(error.__traceback__)
    for (frame, _), line in zip(reversed(frames), reversed(lines), strict=True):
        if frame.f_globals.get("__name__", "").split(".")[0] not in _NOT_THE_USERS:
            return f" in {line.filename}, line {line.lineno}" + (
                f" (`{line.line}`)" if line.line else ""
            )
    return ""
