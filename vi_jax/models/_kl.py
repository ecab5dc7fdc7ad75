"""The KL of a guide from a prior, site by site: in closed form where that is asked for."""

from collections.abc import Mapping
from typing import Any, Literal

from vi_jax.distributions import Program, Stack
from vi_jax.distributions.stack import each_pair
from vi_jax.kl import kl_divergence, kl_per_dimension
from vi_jax.types import Array, Drawn, Guide, Stacked

KL = Literal["closed", "half_closed", "entropy", "drawn"]
KINDS = ("closed", "half_closed", "entropy", "drawn")


def require_kind(kl: str) -> None:
    """Raises ValueError for a word that names no kind of KL."""
    if kl not in KINDS:
        raise ValueError(f"kl is one of {', '.join(map(repr, KINDS))}; got {kl!r}.")


def kls_by_site(q: Guide, p: Guide, z: Any, kl: KL) -> Mapping[str, Array | Drawn | Stacked]:
    """KL(q || p) by site at one draw z ~ q, nats: the sites of two `Program`s, else one site `z`.

    E_q[log q(z_l | z_<l) - log p(z_l | z_>l)] of a site may be taken in closed form, given the
    draws before it, if all that p depends on there was met by q before it.

    Args:
      q, p: guide and prior.
      z: the draw.
      kl: "closed": every site in closed form; "drawn": log q(z) - log p(z) at every site;
        "entropy": minus the entropy of q, in closed form, less log p(z) at the draw;
        "half_closed": closed where it can be, drawn elsewhere.

    Raises:
      NotImplementedError: "closed" or "entropy", where no closed form is known.
      ValueError: "closed", where the order of the sites allows none at one; or one of q and p is
        a Program and the other is not, or they have different sites.
    """
    if not isinstance(q, Program) and not isinstance(p, Program):
        return {"z": one_kl(q, p, z, kl)}
    if not isinstance(q, Program) or not isinstance(p, Program):
        raise ValueError(
            "guide and prior have to be Programs both, or neither; got "
            f"{type(q).__name__} and {type(p).__name__}."
        )
    of_q = q.visits(z)
    of_p = p.visits(z)
    found = {}
    for name, visit in of_q.items():
        missing = of_p[name].given - visit.before
        if missing and kl == "closed":
            raise ValueError(
                f"the KL of the site {name!r} has no closed form: the prior depends there on "
                f"{sorted(missing)}, which the guide draws after it. Take kl='half_closed', or "
                "declare what the prior depends on: site(name, p, given=...)."
            )
        how: KL = "drawn" if missing else kl
        found[name] = one_kl(visit.density, of_p[name].density, z[name], how)
    return found


def one_kl(q: Any, p: Any, z: Any, kl: KL) -> Array | Drawn | Stacked:
    """The KL of one density from another, by dimension [D] where both factorise, else []; of two
    Stacks by layer, too.
    """
    if isinstance(q, Stack) and isinstance(p, Stack):
        return Stacked(each_pair(q, p, z, lambda q, p, z: one_kl(q, p, z, kl)))
    if kl == "closed":
        return finest_kl(q, p)
    if kl == "half_closed":
        try:
            return finest_kl(q, p)
        except NotImplementedError:
            pass  # the metric's name says that this site is drawn
    if kl == "entropy":
        return Drawn(-_entropy(q) - p.log_prob(z))
    return Drawn(q.log_prob(z) - p.log_prob(z))


def _entropy(q: Any) -> Array:
    """E_q[-log q], nats."""
    try:
        return q.entropy()
    except (AttributeError, NotImplementedError):
        raise NotImplementedError(
            f"the entropy of {type(q).__name__} has no closed form; take kl='drawn'."
        ) from None


def finest_kl(q: Any, p: Any) -> Array:
    """KL(q || p) in closed form, [D] where both factorise over one axis, else []."""
    factorised: Any = [getattr(d, "reinterpreted_batch_ndims", None) == 1 for d in (q, p)]
    return kl_per_dimension(q, p) if all(factorised) else kl_divergence(q, p)
