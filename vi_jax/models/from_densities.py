"""A model from its densities: guide, prior and likelihood."""

from collections.abc import Callable
from typing import Any

from vi_jax.attributes import declare
from vi_jax.models._kl import KL, kls_by_site, require_kind
from vi_jax.types import Array, Densities, Model, Params, Terms


def from_densities(
    init: Callable[[Array], Params],
    guide: Callable[[Params, Any], Any],
    prior: Callable[[Params, Any], Any],
    decode: Callable[[Params, Any, Any], Any],
    log_lik: Callable[[Params, Any, Any], Array],
    *,
    kl: KL = "closed",
    penalty: Callable[[Params, Any], Any] | None = None,
    stats: Callable[[Params, Any, Any], Any] | None = None,
    update: Callable[[Array, Params, Any], Params] | None = None,
) -> Model:
    """A Model by its three densities of one example; x and z are pytrees.

    Args:
      init: key -> parameters.
      guide: (params, x) -> q(z | x).
      prior: (params, x) -> p(z), or p(z | context) with the context a part of x.
      decode: (params, x, z) -> p(x | z), a distribution; see `vi_jax.types.Densities`.
      log_lik: (params, x, z) -> log p(x | z), nats, a scalar.
      kl: how the terms take E_q[log q(z) - log p(z)]: "closed", in closed form given the draws
        before a site (an error where there is none); "drawn", at the draw; "entropy", with the
        guide's entropy in closed form and log p at the draw, which has less noise under a prior
        without a closed KL; "half_closed", closed at the sites where it can be and drawn at the
        others. Metrics are named for what was done, `kl/SITE` or `kl_drawn/SITE`.
      penalty: (params, x) -> what is minimised beside any bound.
      stats, update: (params, x, z) -> statistics of one draw, and (key, params, their mean over a
        batch) -> params; see `vi_jax.types.Model.update`.

    Returns:
      A Model. Training by `negative_elbo` refuses it where the guide's draws are not all
      reparameterised: the gradient of its terms goes through them.

    Raises:
      ValueError: `kl` is another word, or only one of stats and update is given.
    """
    require_kind(kl)
    if (stats is None) != (update is None):
        raise ValueError("stats are what update is given: from_densities expects both or neither.")

    @declare(through_draws=True)  # a loss asks whether the guide allows it
    def terms(key: Array, params: Params, x: Any) -> Terms:
        q = guide(params, x)
        z = q.sample(key)
        kls = kls_by_site(q, prior(params, x), z, kl)
        of_penalty = () if penalty is None else penalty(params, x)
        of_stats = () if stats is None else stats(params, x, z)
        return Terms(log_lik(params, x, z), kls, of_penalty, of_stats)

    def generate(key: Array, params: Params, x: Any) -> Any:
        return decode(params, x, prior(params, x).sample(key))

    densities = Densities(guide, prior, decode, log_lik, penalty)
    return Model(init, terms, generate, densities, None, update)
