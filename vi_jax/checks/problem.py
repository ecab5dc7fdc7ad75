"""The input of every check: the functions under test, samples, unconstrained coordinates, and
float64 where it works.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from vi_jax.types import Array, Guide, Params

CHUNK = 64  # evaluations of log_joint side by side: bounds the memory, never the result


class Space(NamedTuple):
    """Unconstrained coordinates u [D] of a latent z (any pytree): z = T(u), T from the constraints
    of q's support.
    """

    to_u: Callable[[Any], Array]
    to_z: Callable[[Array], Any]
    log_det: Callable[[Array], Array]  # log |dT/du|
    size: int


class Problem(NamedTuple):
    """The arguments of `check` in one shape."""

    key: Array
    # (z, batch) -> log p(x, z); batch is None where none was given
    joint: Callable[[Any, Any], Array]
    batch: Any
    num_data: int | None
    per_example: Callable[[Any, Any], Array] | None
    log_prior: Callable[[Any], Array] | None
    constrained: tuple[Callable[[Any], Array], Callable[[Any], Any]] | None
    support: Any  # of the model
    params: Params | None
    make_guide: Callable[[Params], Guide]  # of `params`, or of the guide's own leaves
    num_samples: int
    discrete: bool
    wide: bool  # whether log_joint and q run in float64
    space: Space | None  # None where q is discrete or its support has no bijection
    # u [256, D] of q in those coordinates, the finite ones; [0, D] where there are none
    draws: np.ndarray
    mean: np.ndarray  # of them, [D]
    scale: np.ndarray  # their standard deviation, [D]

    @property
    def guide(self) -> Guide:
        """q, in the dtype of the context."""
        return self.make_guide(widened(self.params))

    @property
    def num_rows(self) -> int:
        """B."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    def fold(self, name: str) -> Array:
        """A key of each check's own."""
        return jax.random.fold_in(
            self.key, sum((i + 1) * ord(c) for i, c in enumerate(name)) % 2**31
        )

    def rng(self, name: str) -> np.random.Generator:
        """NumPy's generator, from the same key: for choices that need no compiling."""
        with wide_context(False):
            return np.random.default_rng(np.asarray(jax.random.key_data(self.fold(name))).ravel())


def x64_is_on() -> bool:
    """Whether the user runs in float64."""
    return jnp.result_type(float) == np.float64


@contextmanager
def wide_context(wide: bool = True) -> Iterator[None]:
    """float64 if asked; draws are compared under one key on purpose and NaN is looked for, so that
    neither is an error here.
    """
    with (
        jax.enable_x64(wide or x64_is_on()),
        jax.debug_key_reuse(False),
        jax.debug_nans(False),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def widened(tree: Any) -> Any:
    """The pytree with its floats in the default dtype of the context: float64 inside
    `wide_context()`.
    """

    def cast(leaf: Any) -> Any:
        is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.result_type(float)) if is_float else leaf

    return jax.tree.map(cast, tree)


def support_of(q: Any, given: Any) -> Any:
    """The constraint of q's samples, or a pytree of them; where q does not say, the one given; else
    None, all reals.
    """
    try:
        support = getattr(q, "support", None)
    except NotImplementedError:
        support = None
    if support is None and hasattr(q, "constraints"):  # `families.constrained`
        return {name: constraint for name, constraint, _ in q.constraints}
    return given if support is None else support


def is_discrete(z: Any, support: Any) -> bool:
    """Whether some leaf of a sample is of whole numbers, by its dtype or by its constraint: no
    gradient in z.
    """
    if isinstance(support, constraints.Constraint):
        return bool(support.is_discrete)
    return any(not jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(z))


def make_space(z: Any, support: Any) -> Space:
    """Coordinates for latents shaped like z.

    Raises:
      NotImplementedError: a constraint has no bijection from the reals, or the constraints do not
        match z.
    """
    leaves, tree = jax.tree.flatten(z)
    kinds = jax.tree.leaves(support, is_leaf=lambda leaf: isinstance(leaf, constraints.Constraint))
    kinds = [constraints.real] * len(leaves) if support is None else kinds
    if len(kinds) != len(leaves) or any(kind.is_discrete for kind in kinds):
        raise NotImplementedError(
            f"the support names {len(kinds)} continuous constraints, and z has {len(leaves)} "
            "leaves."
        )
    maps = [dist.biject_to(kind) for kind in kinds]
    shapes = [jax.eval_shape(t.inv, leaf).shape for t, leaf in zip(maps, leaves, strict=True)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def split(u: Array) -> list[Array]:
        return [
            part.reshape(shape) for part, shape in zip(jnp.split(u, ends[:-1]), shapes, strict=True)
        ]

    def to_u(z: Any) -> Array:
        parts = [jnp.ravel(t.inv(leaf)) for t, leaf in zip(maps, jax.tree.leaves(z), strict=True)]
        return jnp.concatenate(parts)

    def to_z(u: Array) -> Any:
        return jax.tree.unflatten(tree, [t(part) for t, part in zip(maps, split(u), strict=True)])

    def log_det(u: Array) -> Array:
        parts = [
            jnp.sum(t.log_abs_det_jacobian(part, t(part)))
            for t, part in zip(maps, split(u), strict=True)
        ]
        return jnp.asarray(sum(parts))

    return Space(to_u, to_z, log_det, int(ends[-1]))


def with_draws(problem: Problem, count: int = 256) -> Problem:
    """The problem with unconstrained samples of q, in float64 where that works."""
    space = problem.space
    assert space is not None
    with wide_context(problem.wide):
        draw = jax.jit(
            lambda key: jax.vmap(space.to_u)(widened(problem.guide.sample(key, (4 * count,))))
        )
        u = np.asarray(draw(problem.fold("draws")))
    u = u[np.isfinite(u).all(1)]
    if len(u) < count:
        return problem._replace(space=None)
    return problem._replace(draws=u[:count], mean=u.mean(0), scale=u.std(0))


def densities(problem: Problem) -> dict[str, Callable[[Any, Any], Array]]:
    """log_joint and log q as functions (z, batch) -> nats, in the dtype of the context."""
    q = problem.guide
    return {"log_joint": problem.joint, "log q": lambda z, batch: q.log_prob(z)}


def with_gradients(problem: Problem) -> Callable[[Any, Any], dict[str, tuple[Array, Array]]]:
    """(z, batch) -> the value and the gradient in z, as a row [D], of each density."""

    def of(term: Callable[[Any, Any], Array], z: Any, batch: Any) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(term)(z, batch)
        return value, jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(gradient)])

    return lambda z, batch: {name: of(term, z, batch) for name, term in densities(problem).items()}


def log_joint_in_u(problem: Problem) -> Callable[[Array, Any], Array]:
    """(u, batch) -> log p(x, T(u)) + log |dT/du|, the log joint as a density of u."""
    space = problem.space
    assert space is not None
    return lambda u, batch: problem.joint(space.to_z(u), batch) + space.log_det(u)


def log_q_in_u(problem: Problem, u: Array) -> Array:
    """log q(T(u)) + log |dT/du|, log q as a density of u."""
    space = problem.space
    q = problem.guide
    assert space is not None
    return q.log_prob(space.to_z(u)) + space.log_det(u)


def over_rows(f: Callable[..., Any], rows: Any, batch: Any) -> Any:
    """f(row, batch) for each row of a pytree [R, ...], as NumPy; compiled, some rows at a time."""
    count = jax.tree.leaves(rows)[0].shape[0]

    def mapped(rows: Any, batch: Any) -> Any:
        one = lambda row: f(row, batch)  # noqa: E731
        return jax.vmap(one)(rows) if count <= CHUNK else jax.lax.map(one, rows, batch_size=CHUNK)

    return jax.tree.map(np.asarray, jax.jit(mapped)(rows, batch))


def is_key(leaf: Any) -> bool:
    """Whether an array holds typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def take_rows(tree: Any, index: Any) -> Any:
    """The rows of every leaf at an index."""
    return jax.tree.map(
        lambda leaf: (
            np.asarray(leaf)[index] if hasattr(leaf, "dtype") and not is_key(leaf) else leaf[index]
        ),
        tree,
    )
