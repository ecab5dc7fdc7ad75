"""Targets from plain functions: a log density, or a prior and a likelihood over rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints as supports

from vi_jax.arguments import require_function
from vi_jax.targets._subsets import START_BATCHES, subset
from vi_jax.targets.latents import Latents
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import Coordinates, Site, Target, TargetError
from vi_jax.targets.tracing import in_one_sentence
from vi_jax.types import Array, LogDensity

MIN_BATCHES = 10  # N / B from which minibatches are noisy enough for a control variate


def from_log_density(
    log_density: Callable[[Any], Array], example: Any, constraints: Any = None
) -> Target:
    """A target from any JAX function of a pytree.

    Args:
      log_density: z -> log p(x, z), nats, a scalar, up to a constant; z shaped as `example`.
      example: the shapes of the latents: a pytree of arrays (or of `jax.ShapeDtypeStruct`), or D
        for a vector [D].
      constraints: the support of each leaf, constraints of `numpyro.distributions.constraints`: one
        for all leaves, or a pytree of them like `example`, None in it for real numbers; all real if
        not given.

    Returns:
      A Target whose `constrain` gives z as `log_density` takes it.

    Raises:
      TargetError: no latents, a discrete or unknown constraint, a log density that is not one
        number, or one that leaves jax.numpy (float(z), np.array(z), an `if` on z); names the line.
    """
    require_function(log_density, "from_log_density", name="log_density")
    layout = _Layout(example, constraints)

    def density(u: Array) -> Array:
        z, log_det = layout.constrain(u)
        return _scalar(log_density(z), "log_density(z)") + log_det

    layout.trace(density)
    return layout.target(density)


def from_rows(
    log_prior: Callable[[Any], Array],
    log_lik: Callable[[Any, Any], Array],
    data: Any,
    example: Any,
    constraints: Any = None,
    *,
    batch_size: int,
) -> Target:
    """A target whose likelihood factorises over rows of data, so that a method may see a few of
    them at a time.

    Its `sampled(key)` is log p(z) + (N / B) sum_i log p(x_i | z) over B rows drawn without
    replacement: unbiased for the whole (Hoffman et al. 2013, sec. 2.2; Kucukelbir et al. 2017, sec.
    2.7).

    Where a batch is at most a tenth of the rows, its `control_variate(u, value, slope)` is the same
    target whose minibatches have a control variate at u, where the log density of all rows has that
    value and that gradient; `vi.fit` takes one near a mode (as in SVRG).

    Args:
      log_prior: z -> log p(z), a scalar.
      log_lik: (z, rows) -> log p(x_i | z), [B], one number a row.
      data: a pytree of arrays [N, ...].
      example, constraints: as for `from_log_density`.
      batch_size: B, rows at a time.

    Raises:
      TargetError: as for `from_log_density`; leaves of `data` that differ in N; a batch size not in
        1..N; or a likelihood that is not one number a row (a sum or a mean over rows could not be
        scaled).
    """
    layout = _Layout(example, constraints)
    num_data = _num_rows(data, batch_size)

    def density_on(rows: Any, num_rows: int) -> LogDensity:
        def density(u: Array) -> Array:
            z, log_det = layout.constrain(u)
            terms = jnp.asarray(log_lik(z, rows))
            _require_rows(terms, num_rows, "log_lik(z, rows)")
            return (
                _scalar(log_prior(z), "log_prior(z)")
                + (num_data / num_rows) * terms.sum()
                + log_det
            )

        return density

    def sampled(key: Array, num_rows: int = batch_size) -> LogDensity:
        picked = subset(key, num_data, num_rows)
        return density_on(jax.tree.map(lambda leaf: jnp.asarray(leaf)[picked], data), num_rows)

    whole = density_on(data, num_data)
    layout.trace(whole)
    sampled_larger = partial(sampled, num_rows=min(START_BATCHES * batch_size, num_data))
    target = layout.target(whole)._replace(sampled=sampled, sampled_larger=sampled_larger)
    if num_data < MIN_BATCHES * batch_size:
        return target
    return target._replace(control_variate=partial(_with_control_variate, target))


def _with_control_variate(target: Target, anchor: Array, value: Array, slope: Array) -> Target:
    """Minibatches with a control variate, the minibatch's own tangent at `anchor` for that of all
    rows:

        f_batch(u) - [f_batch(a) + f_batch'(a) (u - a)] + [f(a) + f'(a) (u - a)],

    unbiased for any a, and its gradient's noise falls from O(N / sqrt B) to that times the distance
    of u from a (Johnson & Zhang 2013; in posteriors, Baker et al. 2019).
    """

    def quiet(sampled: Callable[[Array], LogDensity], key: Array) -> LogDensity:
        density = sampled(key)
        there, slope_there = jax.value_and_grad(density)(anchor)
        return lambda u: density(u) + (value - there) + (slope - slope_there) @ (u - anchor)

    assert target.sampled is not None
    assert target.sampled_larger is not None
    return target._replace(
        sampled=partial(quiet, target.sampled), sampled_larger=partial(quiet, target.sampled_larger)
    )


def from_local_rows(
    log_prior: Callable[[Any], Array],
    log_joint: Callable[[Any, Any, Any], Array],
    data: Any,
    example: Any,
    local: Any,
    constraints: Any = None,
    local_constraints: Any = None,
    *,
    batch_size: int,
) -> LocalTarget:
    """A target with local latent variables: p(theta) prod_n p(x_n, z_n | theta).

    For `vi.methods.local_advi`, which sees B rows at a time: any B, the fixed point does not depend
    on it.

    Args:
      log_prior: theta -> log p(theta), nats, a scalar; theta shaped as `example`.
      log_joint: (theta, z, rows) -> log p(x_n, z_n | theta), [B], one number a row; the leaves of z
        and rows are [B, ...].
      data: a pytree of arrays [N, ...].
      example: the shapes of the latents that all rows share, a pytree, or D for a vector.
      local: the shapes of the latents of one row, without the axis of rows, a pytree, or d for a
        vector.
      constraints, local_constraints: their supports, as for `from_log_density`.
      batch_size: B, rows at a time.

    Raises:
      TargetError: as for `from_rows`.
    """
    layout = _Layout(example, constraints)
    row_layout = _Layout(local, local_constraints)
    num_data = _num_rows(data, batch_size)

    def rows(index: Array) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], data)

    def log_global(u: Array) -> Array:
        theta, log_det = layout.constrain(u)
        return _scalar(log_prior(theta), "log_prior(theta)") + log_det

    def log_rows(u: Array, v: Array, index: Array) -> Array:
        z, log_det = jax.vmap(row_layout.constrain)(v)
        terms = jnp.asarray(log_joint(layout.constrain(u)[0], z, rows(index)))
        _require_rows(terms, len(index), "log_joint(theta, z, rows)")
        return terms + log_det

    target = LocalTarget(
        log_global,
        log_rows,
        lambda u: layout.constrain(u)[0],
        lambda u, v, index: jax.vmap(lambda v_n: row_layout.constrain(v_n)[0])(v),
        rows,
        layout.names,
        row_layout.names,
        num_data,
        batch_size,
    )
    target.trace()
    return target


def _num_rows(data: Any, batch_size: int) -> int:
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or () in sizes:
        raise TargetError(
            "data expects arrays that all begin with the same axis [N]; got leading axes "
            f"{sorted(sizes)}."
        )
    (num_data,) = sizes.pop()
    if not 1 <= batch_size <= num_data:
        raise TargetError(
            f"batch_size has to be 1..{num_data}, the rows of the data; got {batch_size}."
        )
    return int(num_data)


def _require_rows(terms: Array, num_rows: int, what: str) -> None:
    if terms.shape != (num_rows,):
        raise TargetError(
            f"{what} expects one number a row, shape ({num_rows},), so that it can be scaled by N "
            f"/ B; got shape {terms.shape}."
        )


class _Layout:
    """The coordinates of a pytree of latents."""

    def __init__(self, example: Any, constraints: Any) -> None:
        if isinstance(example, int | np.integer):
            if example < 1:
                raise TargetError(f"a target expects at least one latent; got D = {example}.")
            example = jax.ShapeDtypeStruct((int(example),), jnp.result_type(float))
        paths, treedef = jax.tree_util.tree_flatten_with_path(example)
        self._treedef: Any = treedef
        leaves = self._constraints(constraints, len(paths))
        for path, leaf in paths:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise TargetError(
                    f"the latent {_name(path)!r} has dtype {jnp.result_type(leaf)}: latents are "
                    "real; give floats (discrete ones: "
                    "sum them out)."
                )
        self._names = [_name(path) for path, _ in paths]
        sites = [
            Site(name, constraint, tuple(np.shape(leaf)))
            for name, (_, leaf), constraint in zip(self._names, paths, leaves, strict=True)
        ]
        self._coordinates = Coordinates(sites)
        self.latents = Latents(tuple(sites), jax.tree.unflatten(treedef, self._names))
        self.names = self._coordinates.names

    def _constraints(self, constraints: Any, num_leaves: int) -> list[Any]:
        def is_leaf(x: Any) -> bool:
            return x is None or isinstance(x, supports.Constraint)

        if is_leaf(constraints):
            return [constraints or supports.real] * num_leaves
        leaves, treedef = jax.tree.flatten(constraints, is_leaf=is_leaf)
        if treedef != self._treedef:
            raise TargetError(
                f"constraints need the structure of the example, {self._treedef}; got {treedef}."
            )
        return [leaf or supports.real for leaf in leaves]

    def target(self, density: LogDensity) -> Target:
        """A target of this density."""
        latents = self.latents
        return Target(density, latents.constrain, self.unconstrain, self.names, latents=latents)

    def constrain(self, u: Array) -> tuple[Any, Array]:
        sites, log_det = self._coordinates.constrain(u)
        return self._treedef.unflatten([sites[name] for name in self._names]), log_det

    def unconstrain(self, z: Any) -> Array:
        return self._coordinates.unconstrain(
            dict(zip(self._names, self._treedef.flatten_up_to(z), strict=True))
        )

    def trace(self, density: LogDensity) -> None:
        """Shows errors of shape now, before anything is compiled."""
        with in_one_sentence("the log density"):
            jax.eval_shape(
                density, jax.ShapeDtypeStruct((len(self.names),), jnp.result_type(float))
            )


def _name(path: Any) -> str:
    text = jax.tree_util.keystr(path, simple=True, separator=".")
    return text or "z"


def _scalar(value: Any, what: str) -> Array:
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TargetError(
            f"{what} expects one floating-point number, nats; got shape {value.shape} of "
            f"{value.dtype}. Sum over rows."
        )
    return value
