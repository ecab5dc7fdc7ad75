"""Variational boosting: mixtures grown by one Gaussian at a time."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax import linalg
from vi_jax.gaussian import HALF_LOG_TWO_PI, over_leading
from vi_jax.methods._placed import Placed, log_det
from vi_jax.methods.flow import run_to_end
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.types import Array, LogDensity, Method, MethodInfo, Params, freeze, select

_WIDTHS = (1.0, 2.0, 4.0, 8.0)  # of the mixture that candidates come from
_MAX_DEPTH = 10.0  # nats under the highest density seen, below which log q does not count


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRankMixture:
    """sum_k w_k N(x | mu_k, diag(sigma_k^2) + W_k W_k'); components of weight 0 are
    empty.
    """

    log_weights: Array  # [K]
    params: Params  # loc, log_scale [K, D], factor [K, D, R]

    has_rsample = False  # the choice of a component has no gradient
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.params["loc"].shape[-1:]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]."""
        return self.sample_wide(key, jnp.ones(sample_shape))

    def sample_wide(self, key: Array, stretch: Array) -> Array:
        """Samples [..., D] from components that are `stretch` [...] times as wide."""
        key_which, key_eps = jax.random.split(key)
        which = jax.random.categorical(key_which, self.log_weights, shape=stretch.shape)
        size, rank = self.params["factor"].shape[-2:]
        eps = jax.random.normal(key_eps, (*stretch.shape, size + rank), self.params["loc"].dtype)

        def one(k: Array, eps: Array, stretch: Array) -> Array:
            return _transport(jax.tree.map(lambda leaf: leaf[k], self.params), stretch * eps)

        for _ in stretch.shape:
            one = jax.vmap(one)
        return one(which, eps, stretch)

    def log_prob(self, value: Array) -> Array:
        """log q(x), nats, [...] for x [..., D]."""

        log_constants, scales, factors, solves = jax.vmap(_prepare)(self.params)

        def one(x: Array) -> Array:
            y = (x - self.params["loc"]) / scales  # [K, D]
            a = jnp.einsum("krd,kd->kr", solves, y)
            rest = y - jnp.einsum("kdr,kr->kd", factors, a)
            return jax.nn.logsumexp(
                self.log_weights + log_constants - 0.5 * (jnp.sum(rest**2, 1) + jnp.sum(a**2, 1))
            )

        return over_leading(one, jnp.asarray(value))


def _transport(params: Params, eps: Array) -> Array:
    size = params["loc"].size
    return params["loc"] + jnp.exp(params["log_scale"]) * eps[:size] + params["factor"] @ eps[size:]


def _prepare(params: Params) -> tuple[Array, Array, Array, Array]:
    """What the density of a component at x needs, as in `families.low_rank`: its constant, S [D], V
    = S^-1 W [D, R] and (I + V'V)^-1 V' [R, D]; the squared distance of y = S^-1 (x - mu) is |y - V
    a|^2 + |a|^2 with a = (I + V'V)^-1 V' y.
    """
    scale = jnp.exp(params["log_scale"])
    factor = params["factor"] / scale[:, None]
    root = linalg.cholesky(jnp.eye(factor.shape[1], dtype=factor.dtype) + factor.T @ factor)
    half_log_det = params["log_scale"].sum() + jnp.log(jnp.diagonal(root)).sum()
    solve = linalg.cho_solve((root, True), factor.T)
    return -half_log_det - scale.size * HALF_LOG_TWO_PI, scale, factor, solve


class State(NamedTuple):
    """The mixture over x, with u = loc + root x."""

    mixture: LowRankMixture
    loc: Array  # [D]
    root: Array  # [D, D]
    num_components: Array  # int32, tried so far
    elbo: Array  # nats, on samples that no training has seen
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `boosting`."""

    num_components: int
    rank: int
    num_draws: int
    num_inner_steps: int
    num_candidates: int
    tolerance: float
    ascent: Method
    rule: optax.GradientTransformation


def boosting(
    *,
    num_components: int = 8,
    rank: int = 1,
    start: Method | None = None,
    num_draws: int = 64,
    learning_rate: float = 0.05,
    num_inner_steps: int = 400,
    num_candidates: int = 1_000,
    tolerance: float = 0.01,
) -> Method:
    """Variational boosting (Miller, Foti & Adams 2017, sec. 3; Guo et al. 2016): a step adds a
    component,
        q_c = (1 - rho) q_{c-1} + rho N(mu, diag(sigma^2) + W W'),
    and maximises the ELBO of q_c in rho, mu, sigma and W, what was there before fixed but for the
    factor 1 - rho (their eq. 7), by Adam on samples of the old and of the new component apart, the
    score of q_c dropped, which has mean 0.

    A component starts where log p - log q_{c-1} is largest among samples of a widened q_{c-1} (log
    q counted no lower than 10 nats under the highest density seen, so that far tails do not count),
    and is kept only if the ELBO rises on fresh samples: a mode that no candidate falls near is not
    found. Coordinates are those of the Gaussian that `start` finds, where the first begins.

    Args:
      num_components: K, at most.
      rank: columns of W.
      start: a method whose guide has `loc` and `covariance_matrix`; `pathfinder` if not given.
      num_draws: of each gradient: so many evaluations of the gradient of log p, and as many of its
        value.
      learning_rate: of Adam, for each component falling to 0 along a cosine.
      num_inner_steps: of Adam for each component.
      num_candidates: points of which one is the start of the next component.
      tolerance: stop when a component gains less than this, nats.

    Returns:
      A Method of K steps; its `value` is the ELBO after each component, which does not fall but for
      the noise of 4,000 samples.
    """
    ascent = start or pathfinder()
    rule = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, num_inner_steps)),
    )
    rules = Rules(
        num_components, rank, num_draws, num_inner_steps, num_candidates, tolerance, ascent, rule
    )
    return Method(
        "boosting", partial(_init, rules=rules), partial(_step, rules=rules), _guide, num_components
    )


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    key_init, key_ascent = jax.random.split(key)
    held, spent, _ = run_to_end(
        key_ascent, rules.ascent, log_density, rules.ascent.init(key_init, log_density, start)
    )
    q = rules.ascent.guide(held)
    shape = (rules.num_components, start.size)
    dtype = start.dtype
    params = {
        "loc": jnp.zeros(shape, dtype),
        "log_scale": jnp.zeros(shape, dtype),
        "factor": jnp.zeros((*shape, rules.rank), dtype),
    }
    mixture = LowRankMixture(jnp.full(rules.num_components, -jnp.inf, dtype).at[0].set(0.0), params)
    root = linalg.cholesky(q.covariance_matrix)
    return State(mixture, q.loc, root, jnp.int32(0), jnp.full((), -jnp.inf, dtype), spent)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    key_place, key_train, key_elbo = jax.random.split(key, 3)
    shift = log_det(state.root)

    def inside(x: Array) -> Array:
        value = log_density(state.loc + state.root @ x) + shift
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    old = state.mixture
    number = state.num_components
    one = _newcomer(key_place, inside, state, rules.num_candidates, rules.rank)
    one = _trained(key_train, one, inside, state, rules)
    grown = _mixed(one, old, number)
    elbo = _elbo(key_elbo, inside, grown)
    better = elbo > state.elbo
    gain = elbo - state.elbo
    mixture = select(better, grown, old)
    new = state._replace(
        mixture=mixture,
        num_components=number + 1,
        elbo=jnp.maximum(elbo, state.elbo),
        evaluations=state.evaluations + rules.num_inner_steps * rules.num_draws,
    )
    done = (gain < rules.tolerance) | (number + 1 >= rules.num_components)
    return new, MethodInfo(new.elbo, new.evaluations, done)


def _mixed(params: Params, old: LowRankMixture, number: Array) -> LowRankMixture:
    """q_c of q_{c-1} and the component number c; the first one stands alone."""
    rho_log = jax.nn.log_sigmoid(params["logit"])
    rest_log = jax.nn.log_sigmoid(-params["logit"])
    mixed = (old.log_weights + rest_log).at[number].set(rho_log)
    own = {name: params[name] for name in old.params}
    return LowRankMixture(
        jnp.where(number == 0, old.log_weights, mixed),
        jax.tree.map(lambda all, new: all.at[number].set(new), old.params, own),
    )


def _loss(params: Params, key: Array, log_density: LogDensity, state: State, rules: Rules) -> Array:
    """The negative ELBO of q_c, by samples of the old and of the new component apart; nats."""
    key_old, key_new = jax.random.split(key)
    old = state.mixture
    number = state.num_components
    rho = jnp.where(number == 0, 1.0, jax.nn.sigmoid(params["logit"]))
    shape = (rules.num_draws, state.loc.size + rules.rank)
    eps = jax.random.normal(key_new, shape, state.loc.dtype)
    log_q = freeze(_mixed(params, old, number)).log_prob  # E_q[grad log q] = 0, in rho too

    def terms(x: Array) -> Array:
        return jax.vmap(log_density)(x) - log_q(x)

    new = jnp.mean(terms(jax.vmap(lambda eps: _transport(params, eps))(eps)))
    return -(rho * new + (1.0 - rho) * jnp.mean(terms(old.sample(key_old, (rules.num_draws,)))))


def _trained(
    key: Array, one: Params, log_density: LogDensity, state: State, rules: Rules
) -> Params:
    """The new component and its weight after Adam's steps, without those that are not finite."""

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, optimizer = carry
        gradient = jax.grad(_loss)(params, key, log_density, state, rules)
        updates, new = rules.rule.update(gradient, optimizer, params)
        good = jnp.isfinite(optax.tree.norm(gradient))
        moved = (optax.apply_updates(params, updates), new)
        kept = select(good, moved, carry)
        return kept, None

    keys = jax.random.split(key, rules.num_inner_steps)
    (one, _), _ = jax.lax.scan(step, (one, rules.rule.init(one)), keys)
    return one


def _guide(state: State) -> Placed:
    return Placed(state.mixture, state.loc, state.root)


def _newcomer(
    key: Array, log_density: LogDensity, state: State, num_candidates: int, rank: int
) -> Params:
    """Where a component starts, and its weight's logit: the first at N(0, I); others at a
    candidate, half as wide.
    """
    key_draw, key_factor = jax.random.split(key)
    number = state.num_components
    size = state.loc.size
    x = state.mixture.sample_wide(
        key_draw, jnp.resize(jnp.asarray(_WIDTHS, state.loc.dtype), (num_candidates,))
    )
    log_p = jax.lax.map(log_density, x, batch_size=min(32, num_candidates)) - jnp.where(
        number == 0, 0.0, state.elbo
    )
    score = log_p - jnp.maximum(state.mixture.log_prob(x), jnp.max(log_p) - _MAX_DEPTH)
    first = number == 0
    factor = 0.1 * jax.random.normal(key_factor, (size, rank), x.dtype)
    return {
        "loc": jnp.where(first, 0.0, x[jnp.argmax(score)]),
        "log_scale": jnp.where(first, 0.0, jnp.full(size, jnp.log(0.5), x.dtype)),
        "factor": factor,
        "logit": -jnp.log(jnp.maximum(number, 1).astype(x.dtype)),  # rho = 1 / (c + 1)
    }


def _elbo(key: Array, log_density: LogDensity, q: LowRankMixture) -> Array:
    x = q.sample(key, (4_000,))
    value = jnp.mean(jax.lax.map(log_density, x, batch_size=32) - q.log_prob(x))
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)
