"""What the runs ended at: the guide, its weighed draws, and what is no answer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import Weighed, weigh
from vi_jax.targets.target import Target, TargetError
from vi_jax.types import Array, Method

HIGH = 1e10  # nats that the largest value of a density with a maximum stays below
FAR = 1e8  # unconstrained coordinates beyond it: the density has no maximum, or no scale
ELBO_DRAWS = 100  # of each start, where there are several


def judge(target: Target, method: Method, num_draws: int, key: Array, states: Any) -> tuple[Any, Weighed, Array]:
    """The guide of the best of R states, S weighed draws of it, and the ELBOs [R], nats."""
    num_starts = len(jax.tree.leaves(states)[0])
    key_elbo, key_draws = jax.random.split(key)
    elbos = jnp.zeros(1)
    if num_starts > 1:
        keys = jax.random.split(key_elbo, num_starts)
        elbos = jax.vmap(lambda key, state: _elbo(key, target, method.guide(state)))(keys, states)
        elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
    q = method.guide(jax.tree.map(lambda leaf: leaf[jnp.argmax(elbos)], states))
    weighed = weigh(key_draws, target.log_density, q, num_draws=num_draws)
    return q, weighed, elbos if num_starts > 1 else weighed.elbo[None]


def _elbo(key: Array, target: Target, q: Any) -> Array:
    u = q.sample(key, (ELBO_DRAWS,))
    return jnp.mean(jax.lax.map(target.log_density, u, batch_size=25) - jax.vmap(q.log_prob)(u))


def check(target: Target, q: Any, history: dict[str, np.ndarray], weighed: Weighed) -> None:
    """Raises where there is no answer."""
    values, u = history["value"], np.asarray(weighed.u)
    if not np.all(np.isfinite(u)):
        first = int(np.argmax(~np.isfinite(values))) if not np.all(np.isfinite(values)) else len(values)
        bad = [name for name, column in zip(target.names, u.T, strict=True) if not np.all(np.isfinite(column))]
        raise FloatingPointError(f"the guide is not finite, in {', '.join(bad[:5])}; the first such value was at step {first}.")
    if len(values) and not np.any(np.isfinite(values)):
        site = target.explain(jnp.asarray(u[0])) if target.explain else ""
        raise FloatingPointError(f"the log density was not finite at any draw of step 0 and after{f': {site}' if site else ''}.")
    far = np.median(np.abs(u), axis=0)
    high = np.max(values, initial=-np.inf, where=np.isfinite(values))
    if far.max() > FAR or high > HIGH:
        raise TargetError(
            f"the log density seems unbounded above: {target.names[int(far.argmax())]} went to {u[0, int(far.argmax())]:.1e} "
            f"(unconstrained), the value to {high:.1e} nats. Give it a proper prior."
        )
