"""The measures of a trained model that the commands share: the bounds, the KL per dimension, and
the health of the latents.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import by_draws, heartbeat
from experiments.live import Count, Portions
from experiments.settings import CLOSED_FORM_KL
from vi_jax import bounds
from vi_jax.diagnostics import amortised
from vi_jax.losses import densities_of, log_joint
from vi_jax.shard import Layout
from vi_jax.weights import draw, log_weights

SECONDS = 3.0  # of importance samples between two signs of progress
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
    """A function (key, params, x) -> Measures: a compiled program for each batch of examples, and
    one for all of them.
    """
    threshold = config.eval.active_threshold
    closed = config.family in CLOSED_FORM_KL
    evaluate = amortised.evaluate_example if closed else by_draws.evaluate_example

    @jax.jit
    def terms_of(keys: jax.Array, params: vi.types.Params, x: jax.Array) -> dict[str, Any]:
        return jax.vmap(
            lambda key, x: evaluate(key, model, params, x, num_samples=config.eval.num_samples)
        )(keys, x)

    @jax.jit
    def means_of(terms: dict[str, Any]) -> dict[str, Any]:
        kl_of_site = terms["kl"]["z"]
        kl = kl_of_site.sum(-1) if kl_of_site.ndim == 2 else kl_of_site
        variance = (
            amortised.latent_variance(terms["latent_mean"])
            if closed
            else by_draws.latent_variance(terms)
        )
        return {
            "elbo": amortised.mean_and_stderr(terms["elbo"]),
            "log_lik": amortised.mean_and_stderr(terms["log_lik"]),
            "kl": amortised.mean_and_stderr(kl),
            "kl_per_dimension": kl_of_site.mean(0),
            "latent_variance": variance,
        }

    @jax.jit
    def aggregate_of(key: jax.Array, params: vi.types.Params, x: jax.Array) -> amortised.Aggregate:
        return amortised.aggregate_posterior(
            key, model, params, x, batch_size=config.eval.batch_size
        )

    def measure(key: jax.Array, params: vi.types.Params, x: jax.Array) -> Measures:
        key_terms, key_aggregate = jax.random.split(key)
        num = x.shape[0]
        keys = jax.random.split(key_terms, num)
        parts = []
        with Count("evaluating", num, "examples") as count:
            for rows, counted in _batches(num, config.eval.batch_size):
                part = jax.device_get(terms_of(keys[rows], params, x[rows]))
                parts.append(jax.tree.map(lambda leaf, kept=counted: leaf[kept], part))
                count.add(int(counted.sum()))
        terms = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        out = jax.device_get(means_of(terms))
        with heartbeat.phase("comparing the posteriors of examples"):
            aggregate = jax.device_get(aggregate_of(key_aggregate, params, x[:MAX_AGGREGATE]))
        active = out["latent_variance"] > threshold
        summary = {
            "elbo": _pair(out["elbo"]),
            "log_lik": _pair(out["log_lik"]),
            "kl": _pair(out["kl"]),
            "mutual_information": _pair(aggregate.mutual_information),
            "marginal_kl": _pair(aggregate.marginal_kl),
            "max_information": float(aggregate.max_information),
            "active_units": int(active.sum()),
            "num_latents": len(active),
            "num_examples": num,
        }
        return Measures(
            summary,
            np.asarray(out["kl_per_dimension"]),
            np.asarray(active),
            terms["latent_mean"],
        )

    return measure


def _batches(num: int, most: int, devices: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows [size], which of them count [size]) of batches of one size, as few as can be and as
    even; the last one is filled up with its first row.
    """
    size = -(-num // -(-num // most))
    size = -(-size // devices) * devices
    for start in range(0, num, size):
        rows = np.arange(start, start + size)
        counted = rows < num
        yield np.where(counted, rows, start), counted


def make_log_evidence(
    model: vi.Model, *, num_samples: int, chunk: int, batch_size: int, layout: Layout | None = None
) -> Callable[..., np.ndarray]:
    """A function (key, params, x [N, ...]) -> log p(x) [N] by K importance samples, nats: L_K of
    Burda et al. (2016), eq. 8, as `vi.diagnostics.amortised.log_evidence` has it.

    A batch of examples goes through its samples a few chunks at a time, so that progress is seen
    however slow the model is. The last batch is filled up and cut again: one compile, every example
    once. On a `layout` (of one process) the examples of a batch lie over its devices, and a batch
    is rounded up to a multiple of them.
    """
    devices = 1 if layout is None else layout.num_shards
    spread: Any = (lambda tree: tree) if layout is None else layout.spread
    whole: Any = (lambda tree: tree) if layout is None else layout.gather
    place: Any = (lambda tree: tree) if layout is None else layout.replicate
    num_chunks = num_samples // chunk
    guide = densities_of(model, "log p(x)").guide

    def add_chunks(
        totals: jax.Array,
        keys: jax.Array,
        params: vi.types.Params,
        x: jax.Array,
        first: jax.Array,
        last: jax.Array,
    ) -> jax.Array:
        """The log of the summed means of weights [B], with those of the chunks first..last-1."""

        def one(total: jax.Array, key: jax.Array, x: jax.Array) -> jax.Array:
            q = guide(params, x)
            joint = log_joint(model, params, x)
            chunk_keys = jax.random.split(key, num_chunks)

            def part(number: jax.Array, total: jax.Array) -> jax.Array:
                log_w = log_weights(joint, q, draw(chunk_keys[number], q, chunk))
                return jnp.logaddexp(total, bounds.iwae(log_w))

            return jax.lax.fori_loop(first, last, part, total)

        return whole(jax.vmap(one)(*spread((totals, keys, x))))

    compiled = jax.jit(add_chunks) if layout is None else layout.jit(add_chunks)
    portions = Portions(SECONDS)

    def log_evidence(key: jax.Array, params: vi.types.Params, x: jax.Array) -> np.ndarray:
        key, params, x = place((key, params, x))
        num = x.shape[0]
        keys = jax.random.split(key, num)
        found = []
        has_compiled = False
        with Count(f"log p(x), K = {num_samples:,}", num, "examples") as count:
            for rows, counted in _batches(num, batch_size, devices):
                totals = place(jnp.full(len(rows), -jnp.inf, jnp.result_type(float)))
                first = 0
                while first < num_chunks:
                    last = min(first + portions.size, num_chunks)
                    began = time.perf_counter()
                    totals = compiled(
                        totals, keys[rows], params, x[rows], np.int32(first), np.int32(last)
                    )
                    totals.block_until_ready()
                    if has_compiled:
                        portions.took(last - first, time.perf_counter() - began)
                    has_compiled = True
                    count.add(counted.sum() * (last - first) / num_chunks)
                    first = last
                found.append(np.asarray(totals)[counted])
        return np.concatenate(found) - np.log(num_chunks)

    return log_evidence


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
