"""The KLs of a model's sites, their kinds and their metrics."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array, Drawn, Stacked, Terms


class SiteKL(NamedTuple):
    """The KL of one site, nats."""

    value: Array  # [...], or [B, ...] of a batch
    is_drawn: bool  # by log densities at the draw, not in closed form
    is_stacked: bool  # the first axis of one example is that of equal layers


def site_kls(terms: Terms) -> dict[str, SiteKL]:
    """{site: its KL} of the terms of an example or of a batch.

    Raises:
      ValueError: `kl` is no dictionary of arrays by site.
    """
    if not isinstance(terms.kl, Mapping):
        raise ValueError(
            f"Terms.kl is a dictionary {{site: KL}}; got {type(terms.kl).__name__}. Name the "
            "site, for example {'z': kl}."
        )
    found = {}
    for name, kl in terms.kl.items():
        is_stacked = isinstance(kl, Stacked)
        inner = kl.value if isinstance(kl, Stacked) else kl
        is_drawn = isinstance(inner, Drawn)
        value = inner.value if isinstance(inner, Drawn) else inner
        if len(jax.tree.leaves(value)) != 1:
            raise ValueError(
                f"the KL of a site is one array; that of {name!r} is "
                f"{jax.tree.structure(value)}. Give each array a name of its own."
            )
        found[name] = SiteKL(jnp.asarray(value), is_drawn, is_stacked)
    return found


def site_metrics(means: dict[str, Array], kls: dict[str, SiteKL]) -> dict[str, Array]:
    """`kl/SITE`, or `kl_drawn/SITE`, of the means over a batch; `kl/SITE/1` and so on for the
    layers of a stack; none where a single closed KL is all there is.
    """
    if [(kl.is_drawn, kl.is_stacked) for kl in kls.values()] == [(False, False)]:
        return {}
    found = {}
    for site, mean in means.items():
        name = f"kl_drawn/{site}" if kls[site].is_drawn else f"kl/{site}"
        if kls[site].is_stacked:
            for number, layer in enumerate(mean, start=1):
                found[f"{name}/{number}"] = layer.sum()
        else:
            found[name] = mean.sum()
    return found
