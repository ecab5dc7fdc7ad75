"""Step sizes and stationarity of `local_advi`: what is watched of the rows of a batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from vi_jax.local.guides import LocalGuides
from vi_jax.optimise import row_optimisers, step_size
from vi_jax.targets.local import LocalTarget
from vi_jax.types import Array, Params

GAP_ROWS = 100  # over which the distance between two stages' rows is averaged


def running_gap(
    key: Array,
    gap: Array,
    own: LocalGuides,
    target: LocalTarget,
    q: Any,
    rows: Any,
    entry: row_optimisers.Rows,
) -> Array:
    """The mean symmetrised KL between the rows' answers of this stage and the last, nats: a running
    mean over about GAP_ROWS rows, after those of one more batch.
    """

    def one(key: Array, new: Params, old: Params, row: Any) -> Array:
        a, b = (own.guide(target.local_size, params, row, q, q.mean) for params in (new, old))
        return step_size.symmetrised_kl(key, a, b)

    keys = jax.random.split(jax.random.fold_in(key, 1), target.batch_size)
    seen = jnp.maximum(jnp.mean(jax.vmap(one)(keys, entry.average, entry.answer, rows)), 0.0)
    share = min(1.0, target.batch_size / GAP_ROWS)
    return gap + share * (jnp.where(jnp.isfinite(seen), seen, gap) - gap)


def watched_of(params: tuple[Params, Params], entries: Params | None) -> Array:
    """What has to be stationary: all shared parameters, and the mean row of a batch."""
    flat, _ = ravel_pytree(params)
    if entries is None:
        return flat
    return jnp.concatenate(
        [flat, ravel_pytree(jax.tree.map(lambda leaf: leaf.mean(0), entries))[0]]
    )


def slower_scales(scale: float) -> optax.GradientTransformation:
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


def slower_slopes(num_rows: int) -> optax.GradientTransformation:
    """Updates of how a row follows what all share times sqrt(10 / N), 1 at the most: N rows leave
    of what they share a standard deviation of about N^(-1/2) of a row's own, and larger steps would
    only make rows move with theta that do not.
    """
    share = min(1.0, (10.0 / num_rows) ** 0.5)

    def quiet(updates: Params, params: Params) -> Params:
        del params
        if not isinstance(updates, dict) or "slope" not in updates:
            return updates
        return {**updates, "slope": share * updates["slope"]}

    return optax.stateless(quiet)


def rule_of_rows(rule: optax.GradientTransformation, num_rows: int) -> optax.GradientTransformation:
    """The optimiser of each of N rows of a table."""
    return optax.chain(rule, slower_slopes(num_rows))
