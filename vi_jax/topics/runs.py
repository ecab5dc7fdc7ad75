"""How fits go on: from sweep to sweep by memoized updates, or from pass to pass by stochastic
steps. Every leaf of a state is [R, ...], of R starts side by side.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vi_jax.topics import memoized, svi
from vi_jax.topics.blocks import Blocks, make_blocks
from vi_jax.topics.counts import Counts, Numpy, take
from vi_jax.topics.devices import place_blocks, place_state
from vi_jax.topics.local import CVB0, VB, Rule
from vi_jax.topics.priors import learn_alpha, learn_alpha_collapsed, learn_eta, learn_eta_collapsed
from vi_jax.topics.starts import from_documents
from vi_jax.types import Array

_LEARN_FROM = 5  # sweeps before alpha is learned
_LEAST_BLOCKS = 20
SAFE = 0.015  # in float32 exp(psi) of an alpha or an eta below it may be 0
_TOLERANCE = 1e-3  # of a document's fixed point within a visit, in shares


class Settings(NamedTuple):
    """Checked arguments of a fit."""

    method: str
    rule: Rule
    alpha: Numpy  # [K]
    learns: bool
    eta: Numpy  # [V]
    warm_alpha: Numpy  # of the first sweeps, [K]
    warm_eta: Numpy  # likewise, [V]
    learns_eta: bool
    num_starts: int
    num_iterations: int
    tolerance: float
    num_warm: int
    batch_size: int
    schedule: svi.Schedule
    mesh: Mesh | None  # of several devices

    def starts(self, key: Array, counts: Counts) -> Array:
        """Topics to start from, [R, V, K]."""
        keys = jax.random.split(key, self.num_starts)
        return jnp.stack([from_documents(each, counts, len(self.alpha)) for each in keys])


class Memoized(NamedTuple):
    """Memoized variational Bayes, coordinate ascent and CVB0."""

    settings: Settings
    num_docs: Array  # that are not empty
    blocks: Blocks

    def init(self, start: Array) -> memoized.State:
        """Before the first sweep, of topics [R, V, K]."""
        alpha = jnp.asarray(self.settings.alpha, start.dtype)
        eta = jnp.asarray(self.settings.eta, start.dtype)
        state = jax.vmap(lambda start: memoized.init(self.blocks, alpha, eta, start))(start)
        return place_state(state, self.settings.mesh)

    def sweep(self, state: memoized.State) -> tuple[memoized.State, Array, Array]:
        """The next state, its bound and its criterion of each start [R], nats."""
        number = self.number(state) + 1
        is_time = number >= _LEARN_FROM
        is_warm = number <= self.settings.num_warm
        heat_alpha = np.ones_like(self.settings.alpha)
        heat_eta = np.ones_like(self.settings.eta)
        if is_warm:
            heat_alpha = self.settings.warm_alpha / self.settings.alpha
            heat_eta = self.settings.warm_eta / self.settings.eta
        learns = self.settings.learns and is_time
        learns_eta = self.settings.learns_eta and is_time and not is_warm
        return _sweep(
            self.settings.rule,
            self.settings.method != "cavi",
            self.settings.num_iterations,
            learns,
            learns_eta,
            self.blocks,
            state,
            self.num_docs,
            jnp.asarray(heat_alpha, state.eta.dtype),
            jnp.asarray(heat_eta, state.eta.dtype),
        )

    def number(self, state: memoized.State) -> int:
        """Sweeps so far."""
        return int(np.max(state.num_sweeps))

    def criteria(self, state: memoized.State) -> list[Array]:
        """Those of the last two sweeps, of each start [R], nats; -inf where there was none."""
        return [state.before, state.criterion]

    def is_converged(self, history: list[Numpy], number: int) -> bool:
        """Whether the last sweep moved the criterion too little, those that are warm and alpha's
        first steps behind it.
        """
        if len(history) < 2 or number < max(_LEARN_FROM, self.settings.num_warm) + 2:
            return False
        moved = np.nanmax(np.abs(history[-1] - history[-2]))
        return bool(moved < self.settings.tolerance)

    def topics(self, state: memoized.State) -> Array:
        """Dirichlet parameters, [R, K, V]."""
        return (state.stats + state.eta[:, :, None]).transpose(0, 2, 1)


class Stochastic(NamedTuple):
    """Stochastic variational inference, a sweep being a pass over all documents."""

    settings: Settings
    num_docs: Array
    blocks: Blocks  # of documents in a random order
    key: Array  # of the order of batches

    def init(self, start: Array) -> svi.State:
        """Before the first step, of topics [R, V, K]."""
        alpha = jnp.asarray(self.settings.alpha, start.dtype)
        eta = jnp.asarray(self.settings.eta, start.dtype)
        state = jax.vmap(lambda start: svi.init(start, alpha, eta))(start)
        return place_state(state, self.settings.mesh)

    def sweep(self, state: svi.State) -> tuple[svi.State, Array, Array]:
        """The state after a pass and, twice, the mean of its estimates of the ELBO, [R], nats."""
        key = jax.random.fold_in(self.key, self.number(state))
        order = jax.random.permutation(key, self.blocks.num_blocks)
        settings = self.settings
        before = state.elbo
        state = _pass(
            settings.schedule,
            settings.learns,
            settings.learns_eta,
            self.blocks,
            state,
            order,
            self.num_docs,
        )
        return state._replace(before=before), state.elbo, state.elbo

    def number(self, state: svi.State) -> int:
        """Passes so far."""
        return int(np.max(state.num_steps)) // self.blocks.num_blocks

    def criteria(self, state: svi.State) -> list[Array]:
        """Those of the last two passes, of each start [R], nats; -inf where there was none."""
        return [state.before, state.elbo]

    def is_converged(self, history: list[Numpy], number: int) -> bool:
        """Whether the last pass moved the mean of the estimates too little."""
        if len(history) < 2:
            return False
        moved = np.nanmax(np.abs(history[-1] - history[-2]))
        return bool(moved < self.settings.tolerance)

    def topics(self, state: svi.State) -> Array:
        """Dirichlet parameters, [R, K, V]."""
        return state.average.transpose(0, 2, 1)


def make_run(key: Array, counts: Counts, settings: Settings) -> Any:
    """The run of a method."""
    num_docs = jnp.asarray(np.sum(counts.lengths > 0), jnp.result_type(float))
    num_topics = len(settings.alpha)
    mesh = settings.mesh
    parts_of = (1, 1) if mesh is None else (mesh.shape["data"], mesh.shape["model"])
    if settings.method != "svi":
        blocks = make_blocks(counts, num_topics=num_topics, least=_LEAST_BLOCKS, parts_of=parts_of)
        return Memoized(settings, num_docs, place_blocks(blocks, mesh))
    key_docs, key_order = jax.random.split(key)
    order = np.asarray(jax.random.permutation(key_docs, counts.num_docs))
    num_blocks = max(1, round(counts.num_docs / settings.batch_size))
    blocks = make_blocks(
        take(counts, order),
        num_topics=num_topics,
        num_segments=len(counts.doc),
        least=num_blocks,
        parts_of=parts_of,
    )
    return Stochastic(settings, num_docs, place_blocks(blocks, mesh), key_order)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _pass(
    schedule: svi.Schedule,
    learns: bool,
    learns_eta: bool,
    blocks: Blocks,
    state: svi.State,
    order: Array,
    num_docs: Array,
) -> svi.State:
    def one(state: svi.State) -> svi.State:
        return svi.steps(state, blocks, order, num_docs=num_docs, schedule=schedule, learns=learns)

    return jax.vmap(one)(state)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _sweep(
    rule: Rule,
    incremental: bool,
    num_iterations: int,
    learns: bool,
    learns_eta: bool,
    blocks: Blocks,
    state: memoized.State,
    num_docs: Array,
    heat_alpha: Array,
    heat_eta: Array,
) -> tuple[memoized.State, Array, Array]:
    def one(state: memoized.State) -> tuple[memoized.State, Array, Array]:
        alpha = state.alpha
        state = memoized.sweep(
            rule,
            blocks,
            state._replace(alpha=alpha * heat_alpha),
            num_iterations=num_iterations,
            tolerance=_TOLERANCE,
            incremental=incremental,
            heat=heat_eta,
        )
        state = state._replace(alpha=alpha)
        if learns:
            state = state._replace(alpha=_learned_alpha(rule, blocks, state, num_docs))
        if learns_eta:
            state = state._replace(eta=_learned_eta(rule, state))
        bound, criterion = memoized.bound(rule, state, num_docs)
        state = state._replace(elbo=bound, criterion=criterion, before=state.criterion)
        return state, bound, criterion

    return jax.vmap(one)(state)


def _learned_alpha(rule: Rule, blocks: Blocks, state: memoized.State, num_docs: Array) -> Array:
    """alpha [K] after a step of learning."""
    if rule is not CVB0:
        found = learn_alpha(state.alpha, jnp.sum(state.log_shares, 0), num_docs)
        is_safe = (rule is not VB) | (jnp.min(state.eta) >= SAFE)
        return jnp.where(is_safe, found, jnp.maximum(found, SAFE))
    expected = jnp.maximum(state.gamma - state.alpha, 0.0).reshape(-1, len(state.alpha))
    return learn_alpha_collapsed(state.alpha, expected, jnp.ravel(blocks.lengths))


def _learned_eta(rule: Rule, state: memoized.State) -> Array:
    if rule is VB:
        return learn_eta(state.eta, state.stats + state.eta[:, None])
    return learn_eta_collapsed(state.eta, state.stats)
