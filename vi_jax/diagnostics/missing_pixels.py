"""Imputation of what is missing from an example, by Markov chains over z and by importance
resampling.

For one example x of any model with densities whose p(x | z) is a product over pixels. `observed` is
a pytree of bools like x; what lies under the mask is never looked at, but by `Filled.log_prob`,
which is of it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.diagnostics import _filling
from vi_jax.diagnostics.imputation import LEAST_SAMPLES
from vi_jax.diagnostics.psis import psis
from vi_jax.losses.bound import densities_of
from vi_jax.types import Array, Model, Params, select


class Latents(NamedTuple):
    """Weighted samples of z given the observed part of one example."""

    z: Any  # leaves [T, ...]
    log_weights: Array  # normalised: their exponentials sum to 1, [T]
    accepted: Array  # share of the proposals that were accepted; 1 where none is refused
    k_hat: Array  # of importance weights, see `psis`; -inf of chains, which have none


class Filled(NamedTuple):
    """p(x_miss | x_obs) of one example; observed pixels are themselves throughout."""

    mean: Array  # E[x_j | x_obs], [*x_shape]
    draws: Any  # whole examples from the posterior, leaves [S, ...]
    # log p(x_j | x_obs) of each pixel of x, those under the mask too, nats, [*x_shape]
    log_prob: Array


def pseudo_gibbs(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    observed: Any,
    *,
    num_steps: int = 1_000,
    burn_in: int = 200,
) -> Latents:
    """z ~ q(z | x_miss, x_obs), x_miss ~ p(x_miss | z), by turns (Rezende et al. 2014, appendix F).

    Its stationary distribution is p(x_miss | x_obs) only where the guide is the posterior;
    elsewhere it is off by as much as the guide is.

    Args:
      key: one typed PRNG key.
      model, params: of one example.
      x: one example; anything may stand where it is not observed.
      observed: bools like x.
      num_steps: T, states that are kept.
      burn_in: states before them, from a sample of the model on.

    Raises:
      ValueError: the model has no densities, or a number of steps is not positive.
    """
    _filling.checked_densities("pseudo_gibbs", model, num_steps, burn_in)
    z, _ = _filling.gibbs(key, model, params, x, observed, burn_in + num_steps)
    return _of_chain(_filling.after(burn_in, z), jnp.ones(num_steps))


def metropolis_within_gibbs(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    observed: Any,
    *,
    num_steps: int = 1_000,
    burn_in: int = 200,
    num_moves: int = 4,
) -> Latents:
    """The same chain with z from the guide as a proposal, accepted with probability

        min(1, p(x, z') q(z | x) / (p(x, z) q(z' | x))),  x = (x_obs, x_miss),

    so that its stationary distribution is p(z, x_miss | x_obs), whatever the guide (Mattei &
    Frellsen 2018, sec. 3.3 and algorithm 1). A guide that is narrower than the posterior has few of
    them accepted, 3 % on MNIST; `num_moves` Metropolis moves of p(z | x_obs) follow each, a random
    walk of the spread that z has in the burn-in, before x_miss is drawn.

    The first half of the burn-in is `pseudo_gibbs`.

    Args:
      num_moves: of z alone at each step, where the guide's samples are reparameterised, so that z
        is real; 0 for the paper's chain.
      key, model, params, x, observed, num_steps, burn_in: as for `pseudo_gibbs`.
    """
    densities = _filling.checked_densities("metropolis_within_gibbs", model, num_steps, burn_in)
    key_warm, key_z, key_chain = jax.random.split(key, 3)

    # 1. pseudo-Gibbs: where the chain starts, and how far z moves
    if burn_in < 2:
        first = _filling.start(key_warm, model, params, x, observed)
        z, _ = _filling.propose(densities, params, first, key_z)
        spread = jax.tree.map(jnp.ones_like, z)
    else:
        states = _filling.gibbs(key_warm, model, params, x, observed, burn_in // 2)
        (z, first) = jax.tree.map(lambda leaf: leaf[-1], states)
        spread = jax.tree.map(lambda leaf: leaf.std(0), states[0])

    # 2. the chain of (x_miss, z)
    def log_joint_of_observed(z: Any) -> Array:
        log_p = densities.prior(params, x).log_prob(z)
        return log_p + _filling.log_prob_of_observed(densities.decode(params, x, z), x, observed)

    def log_weight(z: Any, q: Any, filled: Any) -> Array:
        log_p = densities.prior(params, filled).log_prob(z)
        return log_p + densities.log_lik(params, filled, z) - q.log_prob(z)

    def step(state: tuple[Any, Any], key: Array) -> tuple[Any, Any]:
        filled, z = state
        proposal, q = _filling.propose(densities, params, filled, key)
        log_ratio = log_weight(proposal, q, filled) - log_weight(z, q, filled)
        log_u = jnp.log(jax.random.uniform(jax.random.fold_in(key, 2)))
        accepts = log_u < log_ratio
        z = select(accepts, proposal, z)
        if num_moves and getattr(q, "has_rsample", True):
            key_moves = jax.random.fold_in(key, 3)
            z = _filling.walk(key_moves, log_joint_of_observed, z, spread, num_moves)
        filled = _filling.refill(densities, params, x, observed, z, jax.random.fold_in(key, 1))
        return (filled, z), (z, accepts.astype(jnp.result_type(float)))

    rest = burn_in - burn_in // 2
    _, found = jax.lax.scan(step, (first, z), jax.random.split(key_chain, rest + num_steps))
    (z, accepted) = _filling.after(rest, found)
    return _of_chain(z, accepted)


def importance_resampling(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    observed: Any,
    *,
    num_steps: int = 1_000,
    burn_in: int = 200,
    num_fillings: int = 50,
) -> Latents:
    """Samples of z weighted by p(x_obs, z) / q(z), with the proposal

        q(z) = (1/M) sum_m q(z | x_m),

    the guide at M fillings x_m, states of `pseudo_gibbs`: given one filling the guide is narrower
    than p(z | x_obs), and their mixture is not. Samples are stratified over its components; weights
    are Pareto-smoothed (`psis`).

    Args:
      num_steps: K, samples, at least 25.
      burn_in: states of the chain before the fillings.
      num_fillings: M.
      key, model, params, x, observed: as for `pseudo_gibbs`.

    Raises:
      ValueError: as for `pseudo_gibbs`, or num_steps is below 25, or num_fillings below 1.
    """
    densities = _filling.checked_densities("importance_resampling", model, num_steps, burn_in)
    if num_steps < LEAST_SAMPLES or num_fillings < 1:
        raise ValueError(
            f"importance_resampling expects num_steps of at least {LEAST_SAMPLES}, the weights "
            f"that a tail can be fitted to, and num_fillings of at least 1; got {num_steps} and "
            f"{num_fillings}."
        )
    key_chain, key_z = jax.random.split(key)
    # 1. fillings x_1..x_M
    _, states = _filling.gibbs(key_chain, model, params, x, observed, burn_in + num_fillings)
    fillings = _filling.after(burn_in, states)

    # 2. z_k of component k mod M
    def sample(key: Array, number: Array) -> Any:
        filled = jax.tree.map(lambda leaf: leaf[number % num_fillings], fillings)
        return densities.guide(params, filled).sample(key)

    z = jax.vmap(sample)(jax.random.split(key_z, num_steps), jnp.arange(num_steps))

    # 3. their weights
    def log_mixture(z_k: Any) -> Array:
        each = jax.vmap(lambda filled: densities.guide(params, filled).log_prob(z_k))(fillings)
        return jax.nn.logsumexp(each) - jnp.log(num_fillings)

    def log_weight(z_k: Any) -> Array:
        log_p = densities.prior(params, x).log_prob(z_k)
        return log_p + _filling.log_prob_of_observed(densities.decode(params, x, z_k), x, observed)

    log_w = jax.lax.map(log_weight, z) - jax.vmap(log_mixture)(z)
    smoothed = psis(jnp.where(jnp.isnan(log_w), -jnp.inf, log_w))
    return Latents(z, smoothed.log_weights, jnp.ones(()), smoothed.k_hat)


def fill(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    observed: Any,
    latents: Latents,
    *,
    num_draws: int = 20,
) -> Filled:
    """p(x_miss | x_obs) = sum_t w_t p(x_miss | z_t): means and log-probabilities of pixels averaged
    over p(x | z_t) in closed form, draws by resampling z_t.

    Args:
      latents: of one of the three above.
      num_draws: S.
      key, model, params, x, observed: as for them.
    """
    densities = densities_of(model, "fill")
    key_chosen, key_x = jax.random.split(key)
    decoded = jax.eval_shape(
        lambda x, z: _filling.of_pixels(densities.decode(params, x, z), x),
        x,
        jax.tree.map(lambda leaf: leaf[0], latents.z),
    )

    def add(total: tuple[Array, Array], weighted: tuple[Any, Array]) -> tuple[Any, None]:
        mean, log_prob = total
        z, log_weight = weighted
        mean_t, log_prob_t = _filling.of_pixels(densities.decode(params, x, z), x)
        mean = mean + jnp.exp(log_weight) * mean_t
        return (mean, jnp.logaddexp(log_prob, log_weight + log_prob_t)), None

    zero = jnp.zeros(decoded[0].shape, decoded[0].dtype)
    never = jnp.full(decoded[1].shape, -jnp.inf, decoded[1].dtype)
    (mean, log_prob), _ = jax.lax.scan(add, (zero, never), (latents.z, latents.log_weights))
    chosen = jax.random.categorical(key_chosen, latents.log_weights, shape=(num_draws,))
    z = jax.tree.map(lambda leaf: leaf[chosen], latents.z)

    def draw(key: Array, z: Any) -> Any:
        return _filling.refill(densities, params, x, observed, z, key)

    draws = jax.vmap(draw)(jax.random.split(key_x, num_draws), z)
    shown = _filling.pixels_like(observed, mean)
    values = _filling.pixels_like(x, mean).astype(mean.dtype)
    return Filled(jnp.where(shown, values, mean), draws, log_prob)


def _of_chain(z: Any, accepted: Array) -> Latents:
    num_steps = accepted.shape[0]
    even = jnp.full(num_steps, -jnp.log(num_steps), accepted.dtype)
    return Latents(z, even, accepted.mean(), jnp.asarray(-jnp.inf, accepted.dtype))
