"""Mixtures grown by one Gaussian at a time."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax import linalg
from vi_jax.gaussian import HALF_LOG_TWO_PI, over_leading
from vi_jax.methods._placed import Placed, log_det
from vi_jax.methods.flow import climb
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.types import Array, LogDensity, Method, MethodInfo, Params, freeze


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRankMixture:
    """sum_k w_k N(x | mu_k, diag(sigma_k^2) + W_k W_k'); components of weight 0 are empty
    places.
    """

    log_weights: Array  # [K]
    params: Params  # loc, log_scale [K, D], factor [K, D, R]

    has_rsample = False  # which component is drawn has no gradient
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.params["loc"].shape[-1:]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws [*sample_shape, D]."""
        return self.sample_wide(key, jnp.ones(sample_shape))

    def sample_wide(self, key: Array, stretch: Array) -> Array:
        """Draws [..., D] from components that are `stretch` [...] times as wide."""
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
    elbo: Array  # nats, on draws that no training has seen
    evaluations: Array  # int32


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
    factor 1 - rho (their eq. 7), by Adam on draws of the old and of the new component apart, the
    score of q_c dropped, which has mean 0.

    A component starts where log p - log q_{c-1} is largest among draws of a widened q_{c-1} (log q
    counted no lower than 10 nats under the highest density seen, so that far tails do not win), and
    is kept only if the ELBO rises on fresh draws: a mode that no candidate falls near is not found.
    Coordinates are those of the Gaussian that `start` finds, where the first begins.

    Args:
      num_components: K, at most.
      rank: columns of W.
      start: a method whose guide has `loc` and `covariance_matrix`; `pathfinder` if not given.
      num_draws: of each gradient: so many evaluations of the gradient of log p, and as many of its
        value.
      learning_rate: of Adam, for each component falling to 0 along a cosine.
      num_inner_steps: of Adam for each component.
      num_candidates: points of which one is the start of the next component.
      tolerance: stop when a component wins less than this, nats.

    Returns:
      A Method of K steps; its `value` is the ELBO after each component, which does not fall but for
      the noise of 4,000 draws.
    """
    ascent = start or pathfinder()
    rule = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, num_inner_steps)),
    )

    def init(key: Array, log_density: LogDensity, start: Array) -> State:
        key_init, key_ascent = jax.random.split(key)
        held, spent, _ = climb(
            key_ascent, ascent, log_density, ascent.init(key_init, log_density, start)
        )
        q = ascent.guide(held)
        shape = (num_components, start.size)
        dtype = start.dtype
        params = {
            "loc": jnp.zeros(shape, dtype),
            "log_scale": jnp.zeros(shape, dtype),
            "factor": jnp.zeros((*shape, rank), dtype),
        }
        mixture = LowRankMixture(jnp.full(num_components, -jnp.inf, dtype).at[0].set(0.0), params)
        root = linalg.cholesky(q.covariance_matrix)
        return State(mixture, q.loc, root, jnp.int32(0), jnp.full((), -jnp.inf, dtype), spent)

    def step(key: Array, log_density: LogDensity, state: State) -> tuple[State, MethodInfo]:
        key_place, key_train, key_elbo = jax.random.split(key, 3)
        shift = log_det(state.root)

        def inside(x: Array) -> Array:
            value = log_density(state.loc + state.root @ x) + shift
            return jnp.where(jnp.isnan(value), -jnp.inf, value)

        old = state.mixture
        number = state.num_components
        first = number == 0
        one = _newcomer(key_place, inside, state, num_candidates, rank)

        def mixed(params: Params) -> LowRankMixture:
            rho_log = jax.nn.log_sigmoid(params["logit"])
            rest_log = jax.nn.log_sigmoid(-params["logit"])
            log_weights = jnp.where(
                first, old.log_weights, (old.log_weights + rest_log).at[number].set(rho_log)
            )
            own = {name: params[name] for name in old.params}
            return LowRankMixture(
                log_weights, jax.tree.map(lambda all, new: all.at[number].set(new), old.params, own)
            )

        def loss(params: Params, key: Array) -> Array:
            key_old, key_new = jax.random.split(key)
            rho = jnp.where(first, 1.0, jax.nn.sigmoid(params["logit"]))
            eps = jax.random.normal(key_new, (num_draws, state.loc.size + rank), state.loc.dtype)
            log_q = freeze(mixed(params)).log_prob  # E_q[grad log q] = 0, in rho too

            def terms(x: Array) -> Array:
                return jax.vmap(inside)(x) - log_q(x)

            new = jnp.mean(terms(jax.vmap(lambda eps: _transport(params, eps))(eps)))
            return -(rho * new + (1.0 - rho) * jnp.mean(terms(old.sample(key_old, (num_draws,)))))

        def train(carry: Any, key: Array) -> tuple[Any, None]:
            params, optimizer = carry
            gradient = jax.grad(loss)(params, key)
            updates, new = rule.update(gradient, optimizer, params)
            good = jnp.isfinite(optax.tree.norm(gradient))
            kept: Any = jax.tree.map(
                lambda a, b: jnp.where(good, a, b),
                (optax.apply_updates(params, updates), new),
                carry,
            )
            return kept, None

        keys = jax.random.split(key_train, num_inner_steps)
        (one, _), _ = jax.lax.scan(train, (one, rule.init(one)), keys)
        grown = mixed(one)
        elbo = _elbo(key_elbo, inside, grown)
        better = elbo > state.elbo
        gain = elbo - state.elbo
        mixture: LowRankMixture = jax.tree.map(lambda a, b: jnp.where(better, a, b), grown, old)
        new = state._replace(
            mixture=mixture,
            num_components=number + 1,
            elbo=jnp.maximum(elbo, state.elbo),
            evaluations=state.evaluations + num_inner_steps * num_draws,
        )
        return new, MethodInfo(
            new.elbo, new.evaluations, (gain < tolerance) | (number + 1 >= num_components)
        )

    def guide(state: State) -> Placed:
        return Placed(state.mixture, state.loc, state.root)

    return Method("boosting", init, step, guide, num_components)


_WIDTHS = (1.0, 2.0, 4.0, 8.0)  # of the mixture that candidates come from
_DEPTH = 10.0  # nats under the highest density seen, below which log q does not count


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
    score = log_p - jnp.maximum(state.mixture.log_prob(x), jnp.max(log_p) - _DEPTH)
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
