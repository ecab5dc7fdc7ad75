"""Stochastic gradients of the ELBO where rows have latents of their own, a few rows at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from vi_jax import estimators
from vi_jax.bounds import elbo
from vi_jax.families import full_rank
from vi_jax.kl.gaussians import is_gaussian_vector
from vi_jax.methods import _ladder, _rowwise
from vi_jax.methods._local_guides import LocalGuides, coupled_table
from vi_jax.methods.advi import _at, family_of_size, moved
from vi_jax.sampling import antithetic
from vi_jax.targets.local import LocalTarget
from vi_jax.types import Array, Family, MethodInfo, Params

VISITS = 10  # of each row on a rung, on average, before its end
GAP_ROWS = 100  # over which the distance between two rungs' rows is averaged


class LocalMethod(NamedTuple):
    """A way to approximate the posterior of a LocalTarget; pure functions, for `vi.fit` or a loop
    of your own.
    """

    name: str
    init: Callable[[Array, LocalTarget, Array], Any]  # (key, target, start [D]) -> state
    # (key, target, state) -> state, info
    step: Callable[[Array, LocalTarget, Any], tuple[Any, MethodInfo]]
    guide: Callable[[LocalTarget, Any], "LocalGuide"]
    num_steps: int


class State(NamedTuple):
    """The optimisers on their rung."""

    params: tuple[Params, Params]  # of q(u), and of the encoder
    optimizer: tuple[Any, Any]
    rows: _rowwise.Rows | None  # the table
    ladder: _ladder.Ladder  # of the parameters, and of the batches' mean row
    gap: Array  # nats, mean symmetrised KL between the rows' answers of this rung and the last
    evaluations: Array  # int32, rows whose density was differentiated, in batches of B


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LocalGuide:
    """q(u) prod_n q(v_n | u)."""

    shared: Any  # q(u), a guide over [D]
    params: Params  # of the table, leaves [N, ...], or of the encoder
    # [N] bool: rows that some batch has held; the guides of others in a table are as they began
    visited: Array
    guides: LocalGuides = field(metadata={"static": True})
    size: int = field(metadata={"static": True})  # d

    def of_rows(self, target: LocalTarget, u: Array, index: Array) -> Any:
        """q(v_n | u) of rows index [B], stacked: for `jax.vmap`."""
        entries = (
            jax.tree.map(lambda leaf: leaf[index], self.params)
            if self.guides.table
            else self.params
        )
        return _stacked(self.guides, self.size, entries, target.rows(index), self.shared, u)

    def sample_rows(self, key: Array, target: LocalTarget, u: Array, index: Array) -> Array:
        """v [B, d] of rows index [B] given u."""
        keys = jax.random.split(key, len(index))
        return jax.vmap(lambda q, key: q.sample(key))(self.of_rows(target, u, index), keys)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchGuide:
    """q(u) and N / B times the rows of a batch, as a guide over (u [D], v [B, d]): log q is
    unbiased for that of all rows.
    """

    shared: Any
    params: Params  # [B, ...], or the encoder's
    rows: Any
    guides: LocalGuides = field(metadata={"static": True})
    size: int = field(metadata={"static": True})
    batch_size: int = field(metadata={"static": True})
    scale: float = field(metadata={"static": True})

    def _rows_given(self, u: Array) -> Any:
        return _stacked(self.guides, self.size, self.params, self.rows, self.shared, u)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """u [*sample_shape, D] and v [*sample_shape, B, d]; of at most one axis of draws.

        An even number of u from a Gaussian are mirrored in pairs: what a batch says of theta's mean
        then cancels in the gradient of theta's scale, which it would send on a random walk where N
        / B is large.
        """
        key_u, key_v = jax.random.split(key)
        if not sample_shape:
            return self._one(self.shared.sample(key_u), key_v)
        mirrored = is_gaussian_vector(self.shared) and sample_shape[0] % 2 == 0
        u = (antithetic(self.shared) if mirrored else self.shared).sample(key_u, sample_shape)
        return jax.vmap(self._one)(u, jax.random.split(key_v, sample_shape))

    def _one(self, u: Array, key: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, self.batch_size)
        return u, jax.vmap(lambda q, key: q.sample(key))(self._rows_given(u), keys)

    def log_prob(self, value: tuple[Array, Array]) -> Array:
        """log q(u) + (N / B) sum_n log q(v_n | u)."""
        u, v = value
        return (
            self.shared.log_prob(u)
            + self.scale * jax.vmap(lambda q, v: q.log_prob(v))(self._rows_given(u), v).sum()
        )


def local_advi(
    family: Callable[[int], Family] | Family = full_rank,
    guides: LocalGuides | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    encoder_optimizer: optax.GradientTransformation | None = None,
    num_draws: int = 4,
    num_local_steps: int = 4,
    estimator: Callable[..., Array] = estimators.reparam,
    accuracy: float = 0.1,
    mcse: float = 0.05,
    r_hat: float = 1.1,
    num_steps: int = 100_000,
) -> LocalMethod:
    """`advi` for p(theta) prod_n p(x_n, z_n | theta), B rows at a time: stochastic gradients of

        E_q[log p(theta) - log q(theta)
            + (N / B) sum_{n in batch} (log p(x_n, z_n | theta) - log q(z_n | theta))],

    whose mean over batches is the ELBO of all rows, for any B (Hoffman et al. 2013, sec. 2.2;
    Kingma & Welling 2013, eq. 8). Rows of a table outside of the batch have gradient 0 and stay as
    they are, their optimisers too (`_rowwise.py`); a row's own optimiser sees the gradient without
    N / B, so that its steps do not depend on B. Step sizes, averages and the end are those of
    `advi`, of what all rows share and of the batches' mean row; a rung gives each row of a table
    ten visits on average, and the distance between rungs is the larger of that of q(theta) and that
    of the batch's rows, root mean square.

    Args:
      family: of theta, D -> Family.
      guides: of the rows: `vi.methods.coupled_table()` if not given, or `table`, `encoder`.
      optimizer: of optax, minimising, of theta's guide and of each row of a table, in the guides'
        own units; Adam at 0.1 if not given.
      encoder_optimizer: of an encoder's parameters; Adam at 0.01 if not given.
      num_draws: K of each gradient.
      num_local_steps: of the rows of a batch in a table, at each step: rows are seen seldom, and
        what they share follows them (Hoffman et al. 2013 take them to their optimum before each
        step of what they share).
      estimator: valid for the ELBO.
      accuracy, mcse, r_hat: as for `advi`.
      num_steps: gradient steps, at most.

    Returns:
      A LocalMethod, for `vi.fit` on a LocalTarget.
    """
    family_of = family_of_size(family)
    own = coupled_table() if guides is None else guides
    rule = optax.adam(0.1) if optimizer is None else optimizer
    network_rule = optax.adam(0.01) if encoder_optimizer is None else encoder_optimizer

    def rules_of(
        target: LocalTarget,
    ) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        return optax.chain(rule, _slower_scales(target.scale)), network_rule

    def init(key: Array, target: LocalTarget, start: Array) -> State:
        key_shared, key_local = jax.random.split(key)
        shared = _at(family_of(target.size).init(key_shared), start)
        local = own.init(key_local, target.size, target.local_size)
        rows = _rowwise.begin(rule, local, target.num_rows) if own.table else None
        params = (shared, () if own.table else local)
        watched = _watched(
            params, jax.tree.map(lambda leaf: leaf[None], local) if own.table else None
        )
        rules = rules_of(target)
        optimizers = (rules[0].init(params[0]), rules[1].init(params[1]))
        return State(
            params,
            optimizers,
            rows,
            _ladder.begin(watched),
            jnp.zeros((), watched.dtype),
            jnp.int32(0),
        )

    def step(key: Array, target: LocalTarget, state: State) -> tuple[State, MethodInfo]:
        key_rows, key_draws, key_local, key_skl = jax.random.split(key, 4)
        index = target.sample_index(key_rows)
        rows = target.rows(index)
        entry = None if state.rows is None else _rowwise.take(state.rows, index, state.ladder.rungs)
        family_guide = family_of(target.size).guide

        def loss(params: tuple[Params, Params], entries: Params, key: Array = key_draws) -> Array:
            local = entries if own.table else params[1]
            q = BatchGuide(
                family_guide(params[0]),
                local,
                rows,
                own,
                target.local_size,
                target.batch_size,
                target.scale,
            )
            return -estimator(
                key,
                elbo,
                lambda z: target.batch_log_joint(z[0], z[1], index),
                q,
                num_samples=num_draws,
            )

        rate = state.ladder.rate
        cost = num_draws * (max(num_local_steps, 1) if own.table else 1)

        def settled(number: Array, entry: _rowwise.Rows) -> _rowwise.Rows:
            slope = jax.grad(loss, 1)(
                state.params, entry.params, jax.random.fold_in(key_local, number)
            )
            own_slope = jax.tree.map(
                lambda g: jnp.where(jnp.isfinite(g), g / target.scale, 0.0), slope
            )
            return _rowwise.move(rule, entry, own_slope, rate)

        if entry is not None and num_local_steps > 1:
            entry = jax.lax.fori_loop(1, num_local_steps, settled, entry)
        value, slopes = jax.value_and_grad(loss, (0, 1))(
            state.params, () if entry is None else entry.params
        )
        flat, _ = ravel_pytree(slopes)
        # all stand still where one number is not finite
        value = jnp.where(jnp.all(jnp.isfinite(flat)), value, jnp.nan)
        rules = rules_of(target)
        pairs = [
            moved(rules[i], state.params[i], state.optimizer[i], value, slopes[0][i], rate)
            for i in range(2)
        ]
        shared = (pairs[0][0], pairs[1][0])
        optimizers = (pairs[0][1], pairs[1][1])
        new_rows = state.rows
        gap = state.gap
        if state.rows is not None and entry is not None:
            # a row's own ELBO, as at B = N
            slope = jax.tree.map(lambda g: g / target.scale, slopes[1])
            entry = _rowwise.move(rule, entry, slope, rate)
            new_rows = _rowwise.put(state.rows, index, entry, jnp.isfinite(value))
            seen = _row_gap(own, target, family_guide(shared[0]), rows, entry, key_skl)
            gap = gap + min(1.0, target.batch_size / GAP_ROWS) * (
                jnp.where(jnp.isfinite(seen), seen, gap) - gap
            )

        watched = _watched(shared, None if entry is None else entry.params)
        num_shared = ravel_pytree(shared)[0].size
        _, unravel = ravel_pytree(shared)

        def skl(a: Array, b: Array) -> Array:
            q, p = (family_guide(unravel(x[:num_shared])[0]) for x in (a, b))
            return _ladder.symmetrised_kl(jax.random.clone(key_skl), q, p)

        least = (
            max(_ladder.MIN_WINDOW, round(VISITS * target.scale))
            if own.table
            else _ladder.MIN_WINDOW
        )
        ending = _ladder.Rule(accuracy, mcse, r_hat, least)
        ladder, ended = _ladder.climb(
            state.ladder, watched, skl, ending, size=target.size, distance=jnp.sqrt(gap)
        )
        answer = unravel(ladder.answer[:num_shared])
        shared = jax.tree.map(lambda a, p: jnp.where(ended, a, p), answer, shared)
        new = State(shared, optimizers, new_rows, ladder, gap, state.evaluations + cost)
        return new, MethodInfo(-value.astype(ladder.rate.dtype), new.evaluations, ladder.done)

    def guide(target: LocalTarget, state: State) -> LocalGuide:
        flat, unravel = ravel_pytree(state.params)
        shared, network = unravel(state.ladder.answer[: flat.size])
        params = network if state.rows is None else state.rows.average
        visited = jnp.ones(target.num_rows, bool) if state.rows is None else state.rows.rung >= 0
        return LocalGuide(
            family_of(target.size).guide(shared), params, visited, own, target.local_size
        )

    return LocalMethod("local_advi", init, step, guide, num_steps)


def _slower_scales(scale: float) -> optax.GradientTransformation:
    """Updates of all but the location times sqrt(B / N), 0.03 at least: a step knows little of a
    scale beside the noise of its batch, about sqrt(N / B) standard deviations, and as large a step
    would be a random walk by which it collapses.
    """
    share = max(0.03, scale**-0.5)

    def quiet(updates: Params, params: Params) -> Params:
        del params
        if not isinstance(updates, dict):
            return updates
        return {
            name: value if name == "loc" else jax.tree.map(lambda u: share * u, value)
            for name, value in updates.items()
        }

    return optax.stateless(quiet)


def _watched(params: tuple[Params, Params], entries: Params | None) -> Array:
    """What has to be stationary: all shared parameters, and the mean row of a batch."""
    flat, _ = ravel_pytree(params)
    if entries is None:
        return flat
    return jnp.concatenate(
        [flat, ravel_pytree(jax.tree.map(lambda leaf: leaf.mean(0), entries))[0]]
    )


def _row_gap(
    own: LocalGuides, target: LocalTarget, q: Any, rows: Any, entry: _rowwise.Rows, key: Array
) -> Array:
    """The mean, over the rows of a batch, of the symmetrised KL between the answers of this rung
    and the last; nats.
    """

    def one(key: Array, new: Params, old: Params, row: Any) -> Array:
        a, b = (own.guide(target.local_size, params, row, q, q.mean) for params in (new, old))
        return _ladder.symmetrised_kl(key, a, b)

    keys = jax.random.split(jax.random.fold_in(key, 1), target.batch_size)
    return jnp.maximum(jnp.mean(jax.vmap(one)(keys, entry.average, entry.answer, rows)), 0.0)


def _stacked(guides: LocalGuides, size: int, params: Params, rows: Any, q: Any, u: Array) -> Any:
    """The guides of a batch's rows, their leaves [B, ...]."""
    return jax.vmap(
        lambda params, row: guides.guide(size, params, row, q, u), (0 if guides.table else None, 0)
    )(params, rows)
