"""Monte Carlo EM: a model trained by posterior samples of Hamiltonian Monte Carlo."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vi_jax import hmc
from vi_jax.distributions.transports import from_noise
from vi_jax.gaussian import log_standard_normal
from vi_jax.losses.bound import densities_of, log_joint
from vi_jax.losses.info import Info, Loss
from vi_jax.types import Array, LogDensity, Model, Params, freeze, num_examples

SAMPLERS = ("own", "blackjax")


def mcem(
    model: Model,
    *,
    num_transitions: int = 1,
    num_leapfrog: int = 10,
    step_size: float = 0.3,
    sampler: Literal["own", "blackjax"] = "own",
) -> Loss:
    """Monte Carlo EM (Wei & Tanner 1990; Kingma & Welling 2013, sec. 5 and appendix E): the model
    climbs log p(x, z) at z ~ p(z | x), whose mean gradient is that of log p(x).

    z is the end of a chain of Hamiltonian transitions of the posterior that begins at a sample of
    the guide, and the guide climbs log q(z | x) there, without a path through z: it is a starting
    point, the chain's scale and what the run is evaluated by, and does not train the model. The
    chain moves in the noise of the guide, z = T(eps), in which a guide that is the posterior makes
    a standard normal of it. So the gradient's bias is that of a chain of finite length, and none
    where the guide is the posterior.

    The paper has no guide, chains of 10 leapfrog steps whose size is tuned to accept 90 %, and five
    steps of the weights for each sample; here each step has a sample of its own and the share that
    is accepted is reported.

    Args:
      model: of one example, with densities; its latents real, the guide a transport of standard
        normal noise (`distributions.transports`).
      num_transitions: of each chain.
      num_leapfrog: steps of each.
      step_size: of the leapfrog, the longest of a chain, in standard deviations of the guide.
      sampler: "own", `vi_jax.hmc`, or "blackjax", that package's, with steps of one size.

    Returns:
      A Loss whose value is minus the ELBO at the sample that the chain begins at; metrics `elbo`,
      `log_joint` at the chain's end and `acceptance`.

    Raises:
      ValueError: the model has no densities, has train_terms or updates parameters; a count or the
        step size is not positive; the sampler is another word.
      ImportError: blackjax is asked for and is not installed.
    """
    densities = densities_of(model, "mcem")
    if model.update is not None or model.train_terms is not None:
        raise ValueError(
            "mcem expects a model whose parameters all have a gradient and that trains without "
            f"dropout; got update {model.update} and train_terms {model.train_terms}."
        )
    if min(num_transitions, num_leapfrog) < 1 or not step_size > 0:
        raise ValueError(
            "mcem expects num_transitions and num_leapfrog of at least 1 and step_size > 0; got "
            f"{num_transitions}, {num_leapfrog} and {step_size}."
        )
    numbers = {
        "num_transitions": num_transitions,
        "num_leapfrog": num_leapfrog,
        "step_size": step_size,
    }
    chain = _chain(sampler)

    def one(params: Params, key: Array, x: Any) -> tuple[Array, Array, Array, Array]:
        key_start, key_chain = jax.random.split(key)
        q = densities.guide(params, x)
        held = freeze(q)
        template = jax.eval_shape(held.sample, key_start)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), template)
        row, unravel = ravel_pytree(zeros)
        joint = log_joint(model, freeze(params), x)

        def place(eps: Array) -> Any:
            return from_noise(held, unravel(eps))

        def density(eps: Array) -> Array:
            """log p(x, T(eps)) |dT/deps|: the Jacobian is N(eps) / q(T(eps))."""
            z = place(eps)
            return joint(z) - held.log_prob(z) + log_standard_normal(eps)

        start = jax.random.normal(key_start, row.shape, row.dtype)
        end, accepted = chain(key_chain, density, start, **numbers)
        z = freeze(place(end))
        first = place(start)
        elbo = joint(first) - held.log_prob(first)
        return elbo, log_joint(model, params, x)(z), q.log_prob(z), accepted

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        del step
        keys = jax.random.split(key, num_examples(batch))
        found = jax.vmap(one, (None, 0, 0))(params, keys, batch)
        elbo, climb, guide, accepted = (each.mean() for each in found)
        metrics = {"elbo": freeze(elbo), "log_joint": freeze(climb), "acceptance": accepted}
        both = climb + guide
        return freeze(both) - both - metrics["elbo"], Info(metrics, params)

    return loss


def _chain(sampler: str) -> Any:
    """(key, log_density, start, numbers) -> the end of a chain and the share accepted."""
    if sampler not in SAMPLERS:
        raise ValueError(f"mcem's sampler is one of {', '.join(SAMPLERS)}; got {sampler!r}.")
    if sampler == "own":
        return hmc.chain
    try:
        import blackjax
    except ImportError as error:
        raise ImportError(
            "mcem's sampler 'blackjax' is that package's; install it (pip install blackjax), or "
            "take sampler='own'."
        ) from error

    def chain(
        key: Array,
        log_density: LogDensity,
        start: Array,
        *,
        num_transitions: int,
        num_leapfrog: int,
        step_size: float,
    ) -> tuple[Array, Array]:
        kernel = blackjax.hmc(log_density, step_size, jnp.ones(start.size), num_leapfrog)

        def move(state: Any, key: Array) -> tuple[Any, Array]:
            state, info = kernel.step(key, state)
            return state, info.is_accepted.astype(start.dtype)

        keys = jax.random.split(key, num_transitions)
        end, accepted = jax.lax.scan(move, kernel.init(start), keys)
        return end.position, accepted.mean()

    return chain
