"""The health of the latents: active units, mutual information, and the aggregate posterior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments.evals.base import Evaluation, Row, Subject, pair, said
from vi_jax.diagnostics import amortised

MAX_AGGREGATE = 2_000  # examples for the aggregate posterior, whose cost grows with their square
MEAN_SAMPLES = 100  # of z alone, nothing is decoded


def make(subject: Subject) -> Evaluation | str:
    """The evaluation, of models whose guide can be evaluated."""
    if subject.model.densities is None:
        return "the model has no guide q(z | x)"
    spec = subject.config.eval

    def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        return latent_mean(key, subject.model, params, x)

    def reduce(key: jax.Array, params: Any, x: Any, terms: dict[str, Any]) -> dict[str, Any]:
        some = jax.tree.map(lambda leaf: leaf[:MAX_AGGREGATE], x)
        aggregate = amortised.aggregate_posterior(
            key, subject.model, params, some, batch_size=spec.batch_size
        )
        variance = {site: _variance(*parts) for site, parts in terms.items()}
        return {
            "latent_mean": {site: mean for site, (mean, _) in terms.items()},
            "active": {site: each > spec.active_threshold for site, each in variance.items()},
            "aggregate": aggregate,
        }

    return Evaluation("latents", each, reduce, _summarise, _rows)


def latent_mean(
    key: jax.Array, model: vi.Model, params: Any, x: Any
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """{site: (E_q[z] [D], its squared standard error [D])} of one example, by site, flattened.

    The mean is the guide's own where it states one, and the error 0; else it is the mean of
    MEAN_SAMPLES samples. A guide over one vector has the site `z`.
    """
    densities: Any = model.densities
    q = densities.guide(params, x)
    try:
        mean = q.mean
    except (AttributeError, NotImplementedError):  # it states none
        z = by_site(q.sample(key, (MEAN_SAMPLES,)))
        return {site: _of_samples(leaf) for site, leaf in z.items()}
    stated = {site: jnp.ravel(leaf) for site, leaf in by_site(mean).items()}
    return {site: (leaf, jnp.zeros_like(leaf)) for site, leaf in stated.items()}


def by_site(z: Any) -> dict[str, jax.Array]:
    """Latents by the name of their site; a pytree that is no dictionary has the site `z`."""
    if isinstance(z, dict):
        return z
    leaves = jax.tree.leaves(z)
    if len(leaves) == 1:
        return {"z": leaves[0]}
    return {f"z{i + 1}": leaf for i, leaf in enumerate(leaves)}


def _of_samples(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean of samples [S, ...] and its squared standard error, each [D]."""
    flat = z.reshape(MEAN_SAMPLES, -1).astype(jnp.result_type(float))
    return flat.mean(0), flat.var(0, ddof=1) / MEAN_SAMPLES


def _variance(mean: jax.Array, noise: jax.Array) -> jax.Array:
    """Var_x(E_q(z_d | x)) [D] without the variance that averaging samples adds to it, which alone
    would make a unit active.
    """
    return amortised.latent_variance(mean) - noise.mean(0)


def _summarise(found: dict[str, Any]) -> dict[str, Any]:
    active = found["active"]
    aggregate = found["aggregate"]
    summary = {
        "mutual_information": pair(aggregate.mutual_information),
        "marginal_kl": pair(aggregate.marginal_kl),
        "max_information": float(aggregate.max_information),
        "active_units": int(sum(each.sum() for each in active.values())),
        "num_latents": int(sum(each.size for each in active.values())),
    }
    if len(active) > 1:
        summary["active_units_of_site"] = {
            site: [int(each.sum()), int(each.size)] for site, each in active.items()
        }
    return summary


def _rows(summary: dict[str, Any]) -> list[Row]:
    by_site = summary.get("active_units_of_site", {})
    shares = ", ".join(f"{site} {some} of {all_}" for site, (some, all_) in by_site.items())
    units = f"{summary['active_units']:>7} of {summary['num_latents']:<3}"
    return [
        Row("  mutual information I(x; z)", said(summary["mutual_information"]), _near(summary)),
        Row("  KL(q(z) || p(z))", said(summary["marginal_kl"])),
        Row("active units", units, shares),
    ]


def _near(summary: dict[str, Any]) -> str:
    """A note where the estimate is at its ceiling log N."""
    ceiling = summary["max_information"]
    if summary["mutual_information"]["mean"] > ceiling - 1.0:
        return f"a lower bound: near log N = {ceiling:.2f}"
    return ""


def active_share(found: dict[str, Any]) -> tuple[int, int]:
    """Active latents and all of them, over all sites."""
    flags = np.concatenate([np.ravel(each) for each in found["active"].values()])
    return int(flags.sum()), flags.size
