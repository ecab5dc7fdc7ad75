"""The weighted KL of an objective: beta by site, free bits by group."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vi_jax.losses.schedules import Schedule, as_schedule
from vi_jax.losses.sites import SiteKL
from vi_jax.types import Array

Group = Literal["dimension", "layer", "model"]
By = Literal["batch", "example"]
Beta = float | Schedule | Mapping[str, float | Schedule]
FreeBits = float | Mapping[str, float]


def check_free_bits(free_bits: Any, beta: Any, group: str, by: str) -> None:
    """Raises ValueError for a lambda below 0, an unknown group, or a group of several sites with
    numbers by site.
    """
    numbers = free_bits.values() if isinstance(free_bits, Mapping) else [free_bits]
    if any(number < 0 for number in numbers):
        raise ValueError(f"free_bits are nats per {group}, at least 0; got {free_bits}.")
    if group not in ("dimension", "layer", "model") or by not in ("batch", "example"):
        raise ValueError(
            "free bits go by group 'dimension', 'layer' or 'model' and by 'batch' or 'example'; "
            f"got {group!r} and {by!r}."
        )
    if group == "model" and (isinstance(beta, Mapping) or isinstance(free_bits, Mapping)):
        raise ValueError(
            "free bits of the whole model expect one beta and one lambda, not one for each site."
        )


def betas_at(beta: Beta, sites: list[str], step: Array, dtype: Any) -> dict[str, Array]:
    """{site: beta at a step}.

    Raises:
      ValueError: beta is by site, and its sites are not those of the model.
    """
    if not isinstance(beta, Mapping):
        return dict.fromkeys(sites, jnp.asarray(as_schedule(beta)(step), dtype))
    if set(beta) != set(sites):
        raise ValueError(
            f"beta by site expects every site of the model, {sorted(sites)}; got {sorted(beta)}."
        )
    return {site: jnp.asarray(as_schedule(beta[site])(step), dtype) for site in sites}


def floors_of(free_bits: FreeBits, sites: list[str]) -> dict[str, float]:
    """{site: lambda}, 0 where none is given.

    Raises:
      ValueError: a site is not one of the model.
    """
    if not isinstance(free_bits, Mapping):
        return dict.fromkeys(sites, free_bits)
    if not set(free_bits) <= set(sites):
        raise ValueError(
            f"free_bits by site name sites of the model, {sorted(sites)}; got {sorted(free_bits)}."
        )
    return {site: free_bits.get(site, 0.0) for site in sites}


def weighted_kl(
    kls: dict[str, SiteKL],
    betas: dict[str, Array],
    floors: dict[str, float],
    group: Group,
    by: By,
) -> Array:
    """sum of beta max(lambda, KL of a group), nats.

    Args:
      kls: {site: KL [B, ...]}.
      betas, floors: {site: beta}, {site: lambda}.
      group, by: see `negative_elbo`.

    Raises:
      ValueError: lambda is by dimension, and a KL has none.
    """
    if not any(floors.values()):
        return sum_all([betas[site] * kl.value.mean(0).sum() for site, kl in kls.items()])
    # the mean over the batch is taken before the floor, or after it
    if by == "batch":
        kls = {site: kl._replace(value=kl.value.mean(0)[None]) for site, kl in kls.items()}
    if group == "model":
        whole = sum(_sum_from(1, kl.value) for kl in kls.values())
        beta = next(iter(betas.values()))
        return beta * jnp.maximum(whole, max(floors.values())).mean(0)
    terms = []
    for site, kl in kls.items():
        floored = kl.value
        if floors[site]:
            floored = jnp.maximum(_grouped(site, kl, group), floors[site])
        terms.append(betas[site] * floored.mean(0).sum())
    return sum_all(terms)


def _grouped(site: str, kl: SiteKL, group: Group) -> Array:
    """The KL by group: [B], [B, L] of a stack, or as it is by dimension."""
    layer_axes = 2 if kl.is_stacked else 1
    if group == "layer":
        return _sum_from(layer_axes, kl.value)
    if kl.value.ndim == layer_axes:
        raise ValueError(
            f"free_bits are counted per latent dimension, and the KL of the site {site!r} has "
            "none; set them to 0, or take group='layer'."
        )
    return kl.value


def sum_all(tree: Any) -> Array:
    """The sum over all leaves and all of their axes."""
    totals = [leaf.sum() if jnp.ndim(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return sum(totals[1:], totals[0]) if totals else jnp.zeros(())


def _sum_from(axis: int, kl: Array) -> Array:
    """The sum over this axis and those after it."""
    return kl.sum(tuple(range(axis, kl.ndim)))
