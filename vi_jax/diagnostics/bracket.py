"""Lower and upper bounds of the log evidence, each with its standard error."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vi_jax import bounds, linalg
from vi_jax.diagnostics import ais
from vi_jax.diagnostics.posterior import CHUNK
from vi_jax.diagnostics.psis import psis
from vi_jax.types import Array, LogDensity


class Side(NamedTuple):
    """One bound of log p(x), nats."""

    value: Array
    stderr: Array  # over groups of samples, or over chains
    # "lower", "upper, biased down" (its estimate from finitely many samples lies below it on
    # average), or REVERSE
    side: str


LOWER = {"elbo": bounds.elbo, "tvo": bounds.tvo, "iwae": bounds.iwae}
UPPER = {"tvo_upper": bounds.tvo_upper, "eubo": bounds.eubo, "cubo": bounds.cubo}
REVERSE = "upper, as far as the weighted samples are the posterior's"
FULL_UP_TO = 200  # latents whose covariance chains are whitened by; beyond, their variances
# of the chains, in whitened coordinates: LEAPFROG_STEP / D^(1/4)
LEAPFROG_STEP = 0.7
NUM_LEAPFROG = 5


def bracket(
    key: Array,
    log_density: LogDensity,
    q: Any,
    *,
    num_draws: int = 4000,
    num_groups: int = 20,
    num_chains: int = 20,
    num_temperatures: int = 20,
) -> dict[str, Side]:
    """log p(x) from below (ELBO, TVO, IWAE, AIS) and from above (TVO's right sum, EUBO, CUBO_2,
    reverse AIS).

    The first six share one set of samples of a guide, dealt into groups of K: each bound is the
    mean of its value on every group. Those from above are expectations under the posterior, or of
    the squared weights, which K weighted samples reach from below: where the bracket's ends touch
    the answer is good, and a k-hat that is bad says that the upper end is not one (Masrani et al.
    2019; Ji & Shen 2019; Dieng et al. 2017).

    Annealing goes between the guide and the posterior by Hamiltonian transitions, in coordinates in
    which the guide's covariance is the identity: forwards from samples of the guide, log mean w <=
    log p(x); backwards from samples of the posterior, -log mean 1/w >= log p(x) (Grosse et al.
    2015). Posterior samples are resampled here by Pareto-smoothed weights, and moved once by a
    transition that leaves the posterior as it is: a mode that is missing from them is missing from
    the upper end. `vi.diagnostics.ais` brackets where exact samples are available.

    Args:
      key: one typed PRNG key.
      log_density: u -> log p(x, u), nats, normalised in x; u [D], or a pytree.
      q: a guide over u.
      num_draws: S, at least 25; values of the log density, without gradients.
      num_groups: of S / num_groups draws, K; standard errors are over groups.
      num_chains: C each way, 0 for none. Standard errors are over chains, by the delta method;
        where 1/w is heavy-tailed (a guide wider than the posterior, few temperatures) the upper end
        is farther above than its own says.
      num_temperatures: T of either way, 6 C T gradients.

    Returns:
      {name: Side}: "elbo", "tvo", "iwae", "ais" from below, "tvo_upper", "eubo", "cubo",
      "ais_reverse" from above.

    Raises:
      ValueError: fewer than 2 groups, or they do not divide the samples; one chain; no temperature.
    """
    if num_groups < 2 or num_draws % num_groups:
        raise ValueError(
            f"bracket expects 2 groups or more that divide num_draws; got {num_groups} and "
            f"{num_draws}."
        )
    if num_chains < 0 or num_chains == 1 or num_temperatures < 1:
        raise ValueError(
            "bracket expects 2 chains or more, or 0 for none, and a temperature; got "
            f"{num_chains}, {num_temperatures}."
        )
    key_draws, key_anneal = jax.random.split(key)
    u = q.sample(key_draws, (num_draws,))
    log_w = jax.lax.map(log_density, u, batch_size=min(CHUNK, num_draws)) - jax.vmap(q.log_prob)(u)
    groups = log_w.reshape(num_groups, -1)
    one = jax.tree.map(lambda leaf: leaf[0], u)

    def side(bound: Any, name: str) -> Side:
        values = jax.vmap(bound)(groups)
        return Side(values.mean(), values.std(ddof=1) / num_groups**0.5, name)

    below = {name: side(bound, "lower") for name, bound in LOWER.items()}
    above = {name: side(bound, "upper, biased down") for name, bound in UPPER.items()}
    if num_chains:
        require_real(one)
        _, unravel = ravel_pytree(one)
        rows = jax.vmap(lambda z: ravel_pytree(z)[0])(u)
        below["ais"], above["ais_reverse"] = _annealed(
            key_anneal,
            lambda row: log_density(unravel(row)),
            Raveled(q, unravel),
            rows,
            log_w,
            num_chains,
            num_temperatures,
        )
    return below | above


class Raveled(NamedTuple):
    """A guide over a pytree as one over its leaves laid in a row [D]."""

    base: Any
    unravel: Any  # row -> pytree

    def sample(self, key: Array, sample_shape: tuple[int, ...]) -> Array:
        """Samples [N, D]."""
        return jax.vmap(lambda z: ravel_pytree(z)[0])(self.base.sample(key, sample_shape))

    def log_prob(self, row: Array) -> Array:
        """log q, nats."""
        return self.base.log_prob(self.unravel(row))


def require_real(z: Any) -> None:
    """Refuses latents that are not all real.

    Raises:
      ValueError: some leaf of z is not of a floating type.
    """
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(z)):
        raise ValueError(
            "annealing moves real latents; these have leaves of types "
            f"{jax.tree.map(lambda leaf: str(leaf.dtype), z)}. Set num_chains=0 for the bounds of "
            "log-weights alone."
        )


class Whitened(NamedTuple):
    """A guide over x, u = loc + root x; root a triangle, or a diagonal [D]."""

    base: Any
    loc: Array
    root: Array

    def place(self, x: Array) -> Array:
        """u of x [D]."""
        return self.loc + (self.root @ x if self.root.ndim == 2 else self.root * x)

    def whiten(self, u: Array) -> Array:
        """x of u [N, D]."""
        if self.root.ndim == 1:
            return (u - self.loc) / self.root
        return linalg.solve_triangular(self.root, (u - self.loc).T, lower=True).T

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [N, D]."""
        return self.whiten(self.base.sample(key, sample_shape))

    def log_prob(self, x: Array) -> Array:
        """log q, nats, less the log-determinant, which cancels in weights."""
        return self.base.log_prob(self.place(x))


def _annealed(
    key: Array,
    log_density: LogDensity,
    q: Any,
    u: Array,
    log_w: Array,
    num_chains: int,
    num_temperatures: int,
) -> tuple[Side, Side]:
    """AIS from below, and reverse AIS from above, of the guide's samples u [S, D] and their
    log-weights [S].
    """
    key_forward, key_reverse, key_rows = jax.random.split(key, 3)
    size = u.shape[1]
    root = linalg.cholesky(jnp.cov(u.T).reshape(size, size)) if size <= FULL_UP_TO else u.std(0)
    white = Whitened(q, u.mean(0), root)
    rows = jax.random.categorical(key_rows, psis(log_w).log_weights, shape=(num_chains,))

    def joint(x: Array) -> Array:
        return log_density(white.place(x))

    numbers = {
        "num_temperatures": num_temperatures,
        "step_size": LEAPFROG_STEP / size**0.25,
        "num_leapfrog": NUM_LEAPFROG,
    }
    lower = ais.forward(key_forward, joint, white, num_chains=num_chains, **numbers)
    upper = ais.reverse(key_reverse, joint, white, white.whiten(u[rows]), **numbers)
    return (
        Side(lower.lower, _stderr(lower.log_w), "lower"),
        Side(upper.upper, _stderr(-upper.log_w), REVERSE),
    )


def _stderr(log_w: Array) -> Array:
    """Of log mean w, by the delta method."""
    w = jnp.exp(log_w - jnp.max(log_w))
    return w.std(ddof=1) / w.mean() / len(w) ** 0.5
