"""The measures of a trained model that the commands share: the bounds, the KL per dimension, and
the health of the latents.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import by_draws
from experiments.settings import CLOSED_FORM_KL
from vi_jax.diagnostics import amortised
from vi_jax.shard import Layout

MAX_AGGREGATE = 2_000  # examples for the aggregate posterior, whose cost grows with their square


class Measures(NamedTuple):
    """Numbers for the tables and files; `latent_mean` [N, D] and `kl` [D] or [] for figures."""

    summary: dict[str, Any]
    kl: np.ndarray
    active: np.ndarray
    latent_mean: np.ndarray


def make_measure(
    model: vi.Model, config: Any
) -> Callable[[jax.Array, vi.types.Params, jax.Array], Measures]:
    """A function (key, params, x) -> Measures, compiled once for each number of examples."""
    batch_size = config.eval.batch_size
    threshold = config.eval.active_threshold
    closed = config.family in CLOSED_FORM_KL
    evaluate = amortised.evaluate_examples if closed else by_draws.evaluate_examples

    @jax.jit
    def compute(key: jax.Array, params: vi.types.Params, x: jax.Array) -> dict[str, Any]:
        key_terms, key_aggregate = jax.random.split(key)
        terms = evaluate(
            key_terms, model, params, x, num_samples=config.eval.num_samples, batch_size=batch_size
        )
        per_dimension = terms["kl"].ndim == 2
        kl = terms["kl"].sum(-1) if per_dimension else terms["kl"]
        return {
            "elbo": amortised.mean_and_stderr(terms["elbo"]),
            "log_lik": amortised.mean_and_stderr(terms["log_lik"]),
            "kl": amortised.mean_and_stderr(kl),
            "kl_per_dimension": terms["kl"].mean(0),
            "latent_variance": amortised.latent_variance(terms["latent_mean"])
            if closed
            else by_draws.latent_variance(terms),
            "aggregate": amortised.aggregate_posterior(
                key_aggregate, model, params, x[:MAX_AGGREGATE], batch_size=batch_size
            ),
            "latent_mean": terms["latent_mean"],
        }

    def measure(key: jax.Array, params: vi.types.Params, x: jax.Array) -> Measures:
        out = jax.device_get(compute(key, params, x))
        active = out["latent_variance"] > threshold
        aggregate = out["aggregate"]
        summary = {
            "elbo": _pair(out["elbo"]),
            "log_lik": _pair(out["log_lik"]),
            "kl": _pair(out["kl"]),
            "mutual_information": _pair(aggregate.mutual_information),
            "marginal_kl": _pair(aggregate.marginal_kl),
            "max_information": float(aggregate.max_information),
            "active_units": int(active.sum()),
            "num_latents": len(active),
            "num_examples": int(x.shape[0]),
        }
        return Measures(
            summary,
            np.asarray(out["kl_per_dimension"]),
            np.asarray(active),
            np.asarray(out["latent_mean"]),
        )

    return measure


def make_log_evidence(
    model: vi.Model, *, num_samples: int, chunk: int, batch_size: int, layout: Layout | None = None
) -> Callable[..., Iterator[np.ndarray]]:
    """A function (key, params, x [N, ...]) that yields log p(x) by K importance samples, nats, a
    batch of examples at a time.

    The last batch is filled up with its first example and cut again: one compile, every example
    once. On a `layout` (of one process) the examples of a batch lie over its devices, and a batch
    is rounded up to a multiple of them.
    """
    devices = 1 if layout is None else layout.num_shards
    spread = layout.spread if layout is not None else lambda tree: tree

    def compute(keys: jax.Array, params: vi.types.Params, x: jax.Array) -> jax.Array:
        def one(key: jax.Array, x: jax.Array) -> jax.Array:
            return amortised.log_evidence(
                key, model, params, x[None], num_samples=num_samples, chunk=chunk
            )[0]

        return jax.vmap(one)(*spread((keys, x)))

    compiled = jax.jit(compute) if layout is None else layout.jit(compute)

    def batches(key: jax.Array, params: vi.types.Params, x: jax.Array) -> Iterator[np.ndarray]:
        if layout is not None:
            key, params, x = layout.replicate((key, params, x))
        size = -(-min(batch_size, x.shape[0]) // devices) * devices
        keys = jax.random.split(key, x.shape[0])
        for start in range(0, x.shape[0], size):
            rows = np.arange(start, start + size)
            counted = rows < x.shape[0]
            rows = np.where(counted, rows, start)
            yield np.asarray(compiled(keys[rows], params, x[rows]))[counted]

    return batches


def chunk_for(num_samples: int, most: int = 100) -> int:
    """The largest divisor of K that is at most `most`: draws at a time."""
    return next(size for size in range(min(most, num_samples), 0, -1) if num_samples % size == 0)


def mean_stderr(values: np.ndarray) -> dict[str, float]:
    """Mean and standard error over examples [N], in float64."""
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "stderr": float(values.std(ddof=1, dtype=np.float64) / len(values) ** 0.5),
    }


def collapse_alarm(measures: Measures, config: Any, step: int) -> str | None:
    """What to tell of posterior collapse, if it is there: its extent, and what to try.

    A latent has collapsed when its posterior mean does not move with x (Burda et al. 2016); judged
    once the KL has had its full weight for a tenth of the run, since before that a low KL says
    nothing.
    """
    spec = config.objective
    total = config.train.num_steps
    settled = (spec.warmup_steps if spec.warmup == "linear" else 0) + total // 10
    dims = measures.active.size
    active = int(measures.active.sum())
    if step < settled or active > dims // 10:
        return None
    information = measures.summary["mutual_information"]["mean"]
    extent = (
        "every latent ignores x" if active == 0 else f"only {active} of {dims} latents move with x"
    )
    tries = []
    analytic = config.bound == "analytic_elbo"
    if analytic:
        tries.append(
            "--config.objective.warmup=linear --config.objective.warmup_steps="
            + str(max(total // 4, 1))
        )
    if analytic and config.family == "mean_field":
        tries.append("--config.objective.free_bits=0.1")
    if spec.beta > 1.0:
        tries.append("a smaller --config.objective.beta")
    if config.model.likelihood == "gaussian":
        tries.append(
            "a smaller --config.model.sigma"
            + (", or --config.model.sigma=optimal" if analytic else "")
        )
    tries.append("a smaller decoder (--config.model.hidden)")
    return (
        f"ALARM posterior collapse at step {step:,}: {extent}; KL "
        f"{measures.summary['kl']['mean']:.3f} nats, "
        f"mutual information {information:.3f} nats. Try {'; '.join(tries)}."
    )


def table(name: str, summary: dict[str, Any], config: Any) -> str:
    """The closing table, nats, mean and standard error over examples."""
    rows = [
        ("ELBO", summary["elbo"], ""),
        (f"log p(x), IWAE K = {summary['num_importance_samples']:,}", summary["log_evidence"], ""),
        ("reconstruction log p(x|z)", summary["log_lik"], ""),
        ("KL(q(z|x) || p(z))", summary["kl"], ""),
        ("  mutual information I(x; z)", summary["mutual_information"], _near(summary)),
        ("  KL(q(z) || p(z))", summary["marginal_kl"], ""),
    ]
    split = f"{summary['num_examples']:,} {summary['split']} examples"
    lines = [f"{name}: nats per example, mean ± standard error over {split}"]
    lines += [
        f"  {title:<34}{pair['mean']:>11.3f} ± {pair['stderr']:<8.3f}{note}".rstrip()
        for title, pair, note in rows
    ]
    lines.append(
        f"  {'active units':<34}{summary['active_units']:>7} of {summary['num_latents']:<3}"
    )
    if "bits_per_dimension" in summary:
        lines.append(f"  {'bits per dimension':<34}{summary['bits_per_dimension']:>11.3f}")
    if "sigma" in summary:
        lines.append(f"  {'sigma':<34}{summary['sigma']:>11.4f}")
    return "\n".join(lines)


def extras(
    params: vi.types.Params, config: Any, num_pixels: int, log_evidence: float
) -> dict[str, float]:
    """Numbers that only some likelihoods have: sigma (the root mean square where there are many),
    bits per dimension.
    """
    more = {}
    if config.model.likelihood in ("discretized_logistic", "categorical"):
        more["bits_per_dimension"] = -log_evidence / num_pixels / float(np.log(2))
    if "log_sigma" in params["likelihood"]:
        more["sigma"] = float(jnp.sqrt(jnp.mean(jnp.exp(2.0 * params["likelihood"]["log_sigma"]))))
    return more


def _near(summary: dict[str, Any]) -> str:
    """A note where the estimate is at its ceiling log N."""
    ceiling = summary["max_information"]
    return (
        f"a lower bound: near log N = {ceiling:.2f}"
        if summary["mutual_information"]["mean"] > ceiling - 1.0
        else ""
    )


def _pair(value: amortised.MeanStderr) -> dict[str, float]:
    return {"mean": float(value.mean), "stderr": float(value.stderr)}
