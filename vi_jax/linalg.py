"""Cholesky, QR, eigenvalue and singular value decompositions, linear and triangular systems.

The only file of vi_jax that calls them, so that what a release of jaxlib gets wrong is put right
in one place.

On a CPU, jaxlib 0.10.0 to 0.11.0 cut a LAPACK call on a batch of matrices into pieces for the
threads of XLA's pool, and the call holds its own thread until they are done
(`ParallelBatchMap` in jaxlib/cpu/lapack_kernels.cc). As many such calls at once as the pool has
threads, of one program or of several, leave no thread to run a piece: they wait for ever. Later
releases do not cut (jax commit 8599924). For those that do, importing this file replaces JAX's
lowering of these calls on CPUs: a batch goes to LAPACK in groups too small to be cut, the same
calls on the same matrices. So any program compiled afterwards is free of the deadlock, whether the
call is ours, NumPyro's or that of a user's log density.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jax.interpreters import mlir
from jax.numpy.linalg import cholesky, eigh, inv, qr, slogdet, solve, svd
from jax.scipy.linalg import block_diag, cho_solve, solve_triangular

__all__ = [
    "block_diag",
    "cho_solve",
    "cholesky",
    "eigh",
    "inv",
    "one_blas_thread",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
]

FIRST_TO_CUT = (0, 10, 0)
FIRST_NOT_TO_CUT = (0, 11, 1)
WORTH_CUTTING = 200_000  # FLOP of a piece, `kMinWorkPerTask` of lapack_kernels.cc
MAX_SEPARATE_CALLS = 16  # more calls than these are made in loops
NUM_LOOPS = 4  # side by side

# FLOP of one matrix [m, n] in units of m n min(m, n), at least what jaxlib counts
# (`cost_per_matrix`): too many make a smaller group, which is safe too.
FLOP_PER_CUBE = {
    "cholesky": 1 / 3,
    "eig": 10,
    "eigh": 5,
    "geqp3": 2,
    "geqrf": 2,
    "hessenberg": 2,
    "lu": 1,
    "schur": 5,
    "svd": 10,
    "tridiagonal": 4 / 3,
}
COMPLEX = 3  # times as many for complex numbers

Shape = tuple[int, ...]


def is_cut(version: tuple[int, ...]) -> bool:
    """Whether this version of jaxlib cuts LAPACK calls into pieces."""
    return FIRST_TO_CUT <= version < FIRST_NOT_TO_CUT


def flop(name: str, shapes: list[Shape], params: dict[str, Any]) -> float:
    """Floating point operations of one matrix, no fewer than jaxlib counts.

    Args:
      name: of the primitive.
      shapes: of its operands without their batch axes.
      params: of the primitive.
    """
    rows, columns = shapes[-1] if len(shapes[-1]) == 2 else shapes[0]
    if name == "triangular_solve":
        return rows * columns * (rows if params["left_side"] else columns)
    if name == "tridiagonal_solve":
        return 5 * rows * columns
    if name in ("householder_product", "ormqr"):
        (num_reflectors,) = shapes[1]
        return 4 * rows * columns * num_reflectors
    return FLOP_PER_CUBE[name] * rows * columns * min(rows, columns)


def group_size(name: str, avals: list[Any], params: dict[str, Any]) -> int:
    """The largest batch that jaxlib does not cut, whatever the number of threads.

    It cuts into pieces of max(ceil(batch / threads), ceil(200,000 / FLOP)) matrices.

    Args:
      avals: the operands' shapes and types, with their batch axes.
    """
    num_batch_axes = _num_batch_axes(avals)
    shapes = [aval.shape[num_batch_axes:] for aval in avals]
    work = flop(name, shapes, params)
    if jnp.issubdtype(avals[0].dtype, jnp.complexfloating):
        work = work * COMPLEX
    return math.ceil(WORTH_CUTTING / max(work, 1))


def in_groups(call: Callable[..., Any], operands: list[jax.Array], size: int) -> list[jax.Array]:
    """A function of a batch, on groups of it.

    The groups do not depend on each other, so that the threads of XLA's pool share them.

    Args:
      call: maps operands [B, ...] to a list of arrays [B, ...], row by row.
      operands: [B, ...].
      size: rows of a group, at most.
    """
    num_rows = operands[0].shape[0]
    num_groups = math.ceil(num_rows / size)
    if num_groups <= MAX_SEPARATE_CALLS:
        stride = size
        on_part = call
    else:
        stride = size * math.ceil(num_groups / NUM_LOOPS)

        def on_part(*rows: jax.Array) -> Any:
            return jax.lax.map(lambda row: call(*row), rows, batch_size=size)

    parts = [
        on_part(*(x[start : start + stride] for x in operands))
        for start in range(0, num_rows, stride)
    ]
    return [jnp.concatenate(outs) for outs in zip(*parts, strict=True)]


def uncut(rule: Callable[..., Any], primitive: Any) -> Callable[..., Any]:
    """A lowering rule that hands a batch to another rule in groups that jaxlib does not cut.

    Args:
      rule: JAX's own, which makes one LAPACK call for a batch.
      primitive: what it lowers; operands have as many batch axes as the largest has beyond two.
    """

    def lower(ctx: Any, *operands: Any, **params: Any) -> Any:
        num_batch_axes = _num_batch_axes(ctx.avals_in)
        batch = ctx.avals_in[0].shape[:num_batch_axes]
        if not all(map(_can_be_sliced, ctx.avals_in)) or math.prod(batch) == 0:
            return rule(ctx, *operands, **params)
        size = group_size(primitive.name, ctx.avals_in, params)
        if math.prod(batch) <= size:
            return rule(ctx, *operands, **params)

        def call(*rows: jax.Array) -> list[jax.Array]:
            out = primitive.bind(*rows, **params)
            return out if primitive.multiple_results else [out]

        def whole(*operands: jax.Array) -> list[jax.Array]:
            rows = [x.reshape(-1, *x.shape[num_batch_axes:]) for x in operands]
            outs = in_groups(call, rows, size)
            return [out.reshape(*batch, *out.shape[1:]) for out in outs]

        return mlir.lower_fun(whole, multiple_results=True)(ctx, *operands)

    return lower


def _num_batch_axes(avals: Any) -> int:
    return max(len(aval.shape) for aval in avals) - 2


def _can_be_sliced(aval: Any) -> bool:
    """Whether the sizes are numbers, not symbols, and no axis is explicitly sharded."""
    are_numbers = all(isinstance(size, int) for size in aval.shape)
    return are_numbers and all(axis is None for axis in aval.sharding.spec)


def _lower_uncut() -> None:
    """Replaces the lowering on CPUs of every primitive of JAX that calls LAPACK."""
    # Private names, of releases that no longer change: see `is_cut`.
    from jax._src.interpreters.mlir import _platform_specific_lowerings
    from jax._src.lax import linalg as lax_linalg

    names = [*FLOP_PER_CUBE, "householder_product", "ormqr"]
    names += ["triangular_solve", "tridiagonal_solve"]
    for name in names:
        primitive = getattr(lax_linalg, f"{name}_p")
        rule = _platform_specific_lowerings["cpu"][primitive].rule
        mlir.register_lowering(primitive, uncut(rule, primitive), platform="cpu")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS and LAPACK on one thread each time they are called, in a `with` or as a decorator.

    XLA calls LAPACK from each thread of its pool. OpenBLAS shares each of these calls between as
    many threads of its own, which wait for each other by spinning, so that programs at the same
    time stop one another. The setting is the process's: who finds more than one thread limits them,
    and undoes it at the end.
    """
    if jax.default_backend() != "cpu":
        yield
        return
    # Not at the top, since `import vi_jax.types` needs no SciPy, whose LAPACK jaxlib takes: it has
    # to be loaded to be limited.
    import scipy.linalg.cython_lapack  # noqa: F401
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api="blas")
    if all(library["num_threads"] == 1 for library in libraries.info()):
        yield
        return
    with libraries.limit(limits=1):
        yield


if is_cut(tuple(jaxlib.version.__version_info__)):
    _lower_uncut()
