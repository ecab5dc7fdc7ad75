"""ADVI with local latent variables: stochastic gradients of the ELBO, a few rows at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from vi_jax import estimators
from vi_jax.bounds import elbo
from vi_jax.families import full_rank
from vi_jax.local.guide import BatchGuide, LocalGuide
from vi_jax.local.guides import LocalGuides, coupled_table
from vi_jax.local.schedule import rule_of_rows, running_gap, slower_scales, watched_of
from vi_jax.optimise import own_units, row_optimisers, step_size
from vi_jax.targets.local import LocalTarget
from vi_jax.types import Array, Family, MethodInfo, Params, family_of_size, select

VISITS_PER_STAGE = 10  # of each row on a stage, on average, before its end


class LocalMethod(NamedTuple):
    """A way to approximate the posterior of a LocalTarget; pure functions, for `vi.fit` or a loop
    of your own.
    """

    name: str
    init: Callable[[Array, LocalTarget, Array], Any]  # (key, target, start [D]) -> state
    # (key, target, state) -> state, info
    step: Callable[[Array, LocalTarget, Any], tuple[Any, MethodInfo]]
    guide: Callable[[LocalTarget, Any], LocalGuide]
    num_steps: int


class State(NamedTuple):
    """The optimisers on their stage."""

    params: tuple[Params, Params]  # of q(u), and of the encoder
    optimizer: tuple[Any, Any]
    rows: row_optimisers.Rows | None  # the table
    schedule: step_size.Schedule  # of the parameters, and of the batches' mean row
    gap: Array  # nats, mean symmetrised KL between the rows' answers of this stage and the last
    evaluations: Array  # int32, rows whose density was differentiated, in batches of B


class Rules(NamedTuple):
    """The numbers of `local_advi`."""

    num_draws: int
    num_local_steps: int
    estimator: Callable[..., Array]
    accuracy: float
    mcse: float
    r_hat: float
    rule: optax.GradientTransformation
    network_rule: optax.GradientTransformation
    family_of: Callable[[int], Family]
    own: LocalGuides


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
    they are, their optimisers too (`optimise/row_optimisers.py`); a row's own optimiser sees the
    gradient without N / B, so that its steps do not depend on B. Step sizes, averages and the end
    are those of `advi`, of what all rows share and of the batches' mean row; a stage gives each row
    of a table ten visits on average, and the distance between stages is the larger of that of
    q(theta) and that of the batch's rows, root mean square.

    Args:
      family: of theta, D -> Family.
      guides: of the rows: `vi.methods.coupled_table()` if not given, or `table`, `encoder`.
      optimizer: of optax, minimising, of theta's guide and of each row of a table, in the guides'
        own units; Adam at 0.1 if not given.
      encoder_optimizer: of an encoder's parameters; Adam at 0.01 if not given.
      num_draws: K of each gradient.
      num_local_steps: of the rows of a batch in a table, at each step: rows are visited rarely,
        and what they share follows them (Hoffman et al. 2013 take them to their optimum before each
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
    rules = Rules(
        num_draws,
        num_local_steps,
        estimator,
        accuracy,
        mcse,
        r_hat,
        rule,
        network_rule,
        family_of,
        own,
    )
    return LocalMethod(
        "local_advi",
        partial(_init, rules=rules),
        partial(_step, rules=rules),
        partial(_guide, rules=rules),
        num_steps,
    )


def _optimisers_of(
    target: LocalTarget, rules: Rules
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    return optax.chain(rules.rule, slower_scales(target.scale)), rules.network_rule


def _init(key: Array, target: LocalTarget, start: Array, rules: Rules) -> State:
    key_shared, key_local = jax.random.split(key)
    shared = own_units.at(rules.family_of(target.size).init(key_shared), start)
    local = rules.own.init(key_local, target.size, target.local_size)
    rows = None
    first = None
    params = (shared, local)
    if rules.own.table:
        row_rule = rule_of_rows(rules.rule, target.num_rows)
        rows = row_optimisers.begin(row_rule, local, target.num_rows)
        first = jax.tree.map(lambda leaf: leaf[None], local)
        params = (shared, ())
    watched = watched_of(params, first)
    optimisers = _optimisers_of(target, rules)
    optimizers = (optimisers[0].init(params[0]), optimisers[1].init(params[1]))
    return State(
        params,
        optimizers,
        rows,
        step_size.begin(watched),
        jnp.zeros((), watched.dtype),
        jnp.int32(0),
    )


def _step(key: Array, target: LocalTarget, state: State, rules: Rules) -> tuple[State, MethodInfo]:
    key_rows, key_draws, key_local, key_skl = jax.random.split(key, 4)
    index = target.sample_index(key_rows)
    loss = _loss_of(target, index, rules)
    scale = target.scale
    rate = state.schedule.rate
    of_rows = rules._replace(rule=rule_of_rows(rules.rule, target.num_rows))

    # 1. the batch's rows of the table, first by steps of their own
    entry = None
    if state.rows is not None:
        entry = row_optimisers.take(state.rows, index, state.schedule.stages)
        entry = _settled(key_local, loss, state.params, entry, scale, rate, of_rows)

    # 2. what all rows share
    entries = () if entry is None else entry.params
    value, slopes = jax.value_and_grad(loss, (0, 1))(state.params, entries, key_draws)
    flat, _ = ravel_pytree(slopes)
    # nothing moves where one number is not finite
    value = jnp.where(jnp.all(jnp.isfinite(flat)), value, jnp.nan)
    optimisers = _optimisers_of(target, rules)
    pairs = [
        own_units.moved(rule, params, optimizer, value, slope, rate)
        for rule, params, optimizer, slope in zip(
            optimisers, state.params, state.optimizer, slopes[0], strict=True
        )
    ]
    shared = (pairs[0][0], pairs[1][0])
    optimizers = (pairs[0][1], pairs[1][1])

    # 3. the batch's rows, by the same gradient: that of a row's own ELBO, as at B = N
    new_rows = state.rows
    gap = state.gap
    if state.rows is not None and entry is not None:
        slope = jax.tree.map(lambda g: g / scale, slopes[1])
        entry = row_optimisers.move(of_rows.rule, entry, slope, rate)
        new_rows = row_optimisers.put(state.rows, index, entry, jnp.isfinite(value))
        q = rules.family_of(target.size).guide(shared[0])
        gap = running_gap(key_skl, gap, rules.own, target, q, target.rows(index), entry)

    # 4. the step size, and the answer where a stage has ended
    entries = None if entry is None else entry.params
    watched = watched_of(shared, entries)
    schedule, shared = _scheduled(key_skl, state.schedule, watched, shared, gap, target, rules)
    local_steps = max(rules.num_local_steps, 1) if rules.own.table else 1
    cost = rules.num_draws * local_steps
    new = State(shared, optimizers, new_rows, schedule, gap, state.evaluations + cost)
    return new, MethodInfo(-value.astype(schedule.rate.dtype), new.evaluations, schedule.done)


Loss = Callable[[tuple[Params, Params], Params, Array], Array]


def _loss_of(target: LocalTarget, index: Array, rules: Rules) -> Loss:
    """(parameters, rows of the table, key) -> the negative ELBO by the rows `index`, nats."""
    rows = target.rows(index)

    def log_joint(z: tuple[Array, Array]) -> Array:
        return target.batch_log_joint(z[0], z[1], index)

    def loss(params: tuple[Params, Params], entries: Params, key: Array) -> Array:
        local_params = entries if rules.own.table else params[1]
        q = BatchGuide(
            rules.family_of(target.size).guide(params[0]),
            local_params,
            rows,
            rules.own,
            target.local_size,
            target.batch_size,
            target.scale,
        )
        return -rules.estimator(key, elbo, log_joint, q, num_samples=rules.num_draws)

    return loss


def _settled(
    key: Array,
    loss: Loss,
    params: tuple[Params, Params],
    entry: row_optimisers.Rows,
    scale: float,
    rate: Array,
    rules: Rules,
) -> row_optimisers.Rows:
    """The rows of a batch after all but the last of their steps, what they share held fixed."""

    def one(number: Array, entry: row_optimisers.Rows) -> row_optimisers.Rows:
        slope = jax.grad(loss, 1)(params, entry.params, jax.random.fold_in(key, number))
        own_slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g / scale, 0.0), slope)
        return row_optimisers.move(rules.rule, entry, own_slope, rate)

    if rules.num_local_steps <= 1:
        return entry
    return jax.lax.fori_loop(1, rules.num_local_steps, one, entry)


def _scheduled(
    key: Array,
    schedule: step_size.Schedule,
    watched: Array,
    shared: tuple[Params, Params],
    gap: Array,
    target: LocalTarget,
    rules: Rules,
) -> tuple[step_size.Schedule, tuple[Params, Params]]:
    """The schedule after one more iterate, and the parameters: the answer where a stage ended."""
    flat, unravel = ravel_pytree(shared)
    num_shared = flat.size

    def skl(a: Array, b: Array) -> Array:
        q, p = (rules.family_of(target.size).guide(unravel(x[:num_shared])[0]) for x in (a, b))
        return step_size.symmetrised_kl(jax.random.clone(key), q, p)

    least = step_size.MIN_WINDOW
    if rules.own.table:
        least = max(least, round(VISITS_PER_STAGE * target.scale))
    schedule, ended = step_size.advance(
        schedule,
        watched,
        skl,
        step_size.Rule(rules.accuracy, rules.mcse, rules.r_hat, least),
        size=target.size,
        distance=jnp.sqrt(gap),
    )
    answer = unravel(schedule.answer[:num_shared])
    return schedule, select(ended, answer, shared)


def _guide(target: LocalTarget, state: State, rules: Rules) -> LocalGuide:
    flat, unravel = ravel_pytree(state.params)
    shared, network = unravel(state.schedule.answer[: flat.size])
    params = network if state.rows is None else state.rows.average
    visited = jnp.ones(target.num_rows, bool) if state.rows is None else state.rows.stage >= 0
    return LocalGuide(
        rules.family_of(target.size).guide(shared), params, visited, rules.own, target.local_size
    )
