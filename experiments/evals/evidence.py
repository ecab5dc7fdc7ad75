"""log p(x) by importance sampling, and how far its weights can be trusted."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments.evals.base import Row, batches, mean_stderr, said
from experiments.run import effort
from experiments.run.live import Count, Portions
from vi_jax.diagnostics.psis import k_hat_of_largest, tail_size
from vi_jax.losses import densities_of, log_joint
from vi_jax.shard import Layout, as_layout
from vi_jax.types import num_examples
from vi_jax.weights import draw, log_weights

MIN_SAMPLES = 25  # for k-hat
RELIABLE = 0.7  # k-hat below it: the importance weights have a mean (Vehtari et al. 2024)
BRACKETED_SHARE = 0.9  # of examples below it, for the upper bound to be said
MAX_CHUNK = 100  # samples at a time
BOUNDS = "evidence_bounds"  # in the summary; `bracket` is that of annealing, see `sides`
SECONDS = 3.0  # of importance samples between two signs of progress


class Evidence(NamedTuple):
    """Importance sampling of some examples."""

    log_p: np.ndarray  # L_K of Burda et al. (2016), eq. 8, nats, [N]
    k_hat: np.ndarray  # [N]; nan where K is below MIN_SAMPLES
    stderr: np.ndarray  # of each log_p, over importance samples, [N]; nan of a single sample
    # log p lies between them, nats, [N]: E_q[log w], and E_p(z|x)[log w] as the weighted samples
    # have it, from below (Ji & Shen 2019, eq. 6)
    elbo: np.ndarray
    eubo: np.ndarray


class Sums(NamedTuple):
    """What is kept of the weights of some examples so far."""

    total: jax.Array  # log of the summed weights, [B]
    largest: jax.Array  # log-weights, descending, [B, M + 1]: for k-hat
    squares: jax.Array  # log of the summed squares of the weights, [B]
    plain: jax.Array  # summed log-weights, [B]
    weighted: jax.Array  # mean log-weight by the weights, [B]


def make_log_evidence(
    model: vi.Model,
    *,
    num_samples: int,
    batch_size: int,
    most: int = MAX_CHUNK,
    layout: Layout | None = None,
) -> Callable[..., Evidence]:
    """A function (key, params, x leaves [N, ...]) -> Evidence.

    A batch of examples goes through its samples a few chunks at a time, so that progress is seen
    however slow the model is. The last batch is filled up and cut again: one compile, every example
    once. On a `layout` (of one process) the examples of a batch lie over its devices, and a batch
    is rounded up to a multiple of them. Memory grows with the root of K.

    Args:
      model: with densities.
      num_samples: K, per example.
      batch_size: examples at a time.
      most: samples at a time, at most.

    Raises:
      ValueError: the model has no densities.
    """
    chunk = chunk_for(num_samples, most)
    num_chunks = num_samples // chunk
    layout = as_layout(layout)
    options = effort.of_importance_samples()
    program = make_program(model, num_chunks, chunk, layout, compiler_options=options)
    portions = Portions(SECONDS)
    k_hats = jax.jit(jax.vmap(k_hat_of_largest))

    def log_evidence(key: jax.Array, params: Any, x: Any) -> Evidence:
        key, params, x = layout.replicate((key, params, x))
        num = num_examples(x)
        keys = jax.random.split(key, num)
        found = []
        has_compiled = False
        with Count(f"log p(x), K = {num_samples:,}", num, "examples") as count:
            for rows, counted in batches(num, batch_size, layout.num_shards):
                some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], x)
                sums = no_sums(len(rows), num_samples)
                first = 0
                while first < num_chunks:
                    last = min(first + portions.size, num_chunks)
                    began = time.perf_counter()
                    given = (layout.replicate(sums), keys[rows], params, some)
                    # back to the host, so that no portion is compiled for where the last one lies
                    sums = jax.device_get(program(*given, np.int32(first), np.int32(last)))
                    if has_compiled:
                        portions.took(last - first, time.perf_counter() - began)
                    has_compiled = True
                    count.add(counted.sum() * (last - first) / num_chunks)
                    first = last
                found.append(jax.tree.map(lambda leaf, c=counted: np.asarray(leaf)[c], sums))
        (total, largest, squares, plain, weighted) = (
            np.concatenate(parts) for parts in zip(*found, strict=True)
        )
        k_hat = np.full(num, np.nan)
        if num_samples >= MIN_SAMPLES:
            k_hat = np.asarray(k_hats(largest[:, ::-1]))
        stderr = relative_stderr(total, squares, num_samples)
        log_p = total - np.log(num_samples)
        return Evidence(log_p, k_hat, stderr, plain / num_samples, weighted)

    return log_evidence


def make_program(
    model: vi.Model,
    num_chunks: int,
    chunk: int,
    layout: Layout | None = None,
    **options: Any,
) -> Callable[..., Sums]:
    """The compiled (sums, keys [B], params, x, first, last) -> sums with the weights of the chunks
    first..last-1 added; the options are those of `jax.jit`.
    """
    layout = as_layout(layout)
    densities = densities_of(model, "log p(x)")

    def add_chunks(
        sums: Sums, keys: jax.Array, params: Any, x: Any, first: jax.Array, last: jax.Array
    ) -> Sums:
        def one(sums: Sums, key: jax.Array, x: Any) -> Sums:
            q = densities.guide(params, x)
            log_weights_at = _log_weights(model, params, x, q)
            chunk_keys = jax.random.split(key, num_chunks)

            def part(number: jax.Array, sums: Sums) -> Sums:
                log_w = log_weights_at(draw(chunk_keys[number], q, chunk))
                return _added(sums, log_w)

            return jax.lax.fori_loop(first, last, part, sums)

        return layout.gather(jax.vmap(one)(*layout.spread((sums, keys, x))))

    return layout.jit(add_chunks, **options)


def _log_weights(model: vi.Model, params: Any, x: Any, q: Any) -> Callable[[Any], jax.Array]:
    """z [K, ...] -> log p(x, z_k) - log q(z_k), [K]."""
    densities = densities_of(model, "log p(x)")
    if densities.log_weight is not None:
        return jax.vmap(partial(densities.log_weight, params, x, q))
    return partial(log_weights, log_joint(model, params, x), q)


def _added(sums: Sums, log_w: jax.Array) -> Sums:
    """The sums of one example with those of some log-weights [K]."""
    own = jax.nn.logsumexp(log_w)
    total = jnp.logaddexp(sums.total, own)
    both = jnp.concatenate([sums.largest, log_w])
    # a mean by the weights so far, moved towards that of the new ones by their share
    shares = jax.nn.softmax(log_w)
    mean = jnp.sum(jnp.where(shares > 0.0, shares * log_w, 0.0))
    share = jnp.exp(own - total)
    return Sums(
        total,
        jax.lax.top_k(both, sums.largest.shape[0])[0],
        jnp.logaddexp(sums.squares, jax.nn.logsumexp(2.0 * log_w)),
        sums.plain + log_w.sum(),
        sums.weighted + share * (mean - sums.weighted),
    )


def no_sums(size: int, num_samples: int) -> Sums:
    """Of no sample yet, for a batch of examples that will have K of them."""
    kept = min(tail_size(num_samples) + 1, num_samples)
    none = -jnp.inf
    dtype = jnp.result_type(float)
    nothing = jnp.full(size, none, dtype)
    zeros = jnp.zeros(size, dtype)
    return Sums(nothing, jnp.full((size, kept), none, dtype), nothing, zeros, zeros)


def relative_stderr(total: np.ndarray, squares: np.ndarray, num_samples: int) -> np.ndarray:
    """The standard error of a mean weight in units of the mean, and so that of its logarithm to
    first order (the delta method), [N].

    Args:
      total: log of the summed weights, [N].
      squares: log of the summed squares of the weights, [N].
      num_samples: K; of a single sample it is nan.
    """
    if num_samples < 2:
        return np.full(total.shape, np.nan)
    # Var(mean w) / mean^2 = (sum w^2 / (sum w)^2 - 1 / K) K / (K - 1)
    share = np.exp(squares.astype(np.float64) - 2.0 * total.astype(np.float64))
    variance = np.maximum(share - 1.0 / num_samples, 0.0)
    return np.sqrt(variance * num_samples / (num_samples - 1.0))


def chunk_for(num_samples: int, most: int = MAX_CHUNK) -> int:
    """The largest divisor of K that is at most `most`: samples at a time."""
    return next(size for size in range(min(most, num_samples), 0, -1) if num_samples % size == 0)


def summarise(
    found: Evidence, num_samples: int, nats_per_bit_dimension: float | None
) -> dict[str, Any]:
    """The summary of a split; `nats_per_bit_dimension` is D_x log 2 where x is counted in its
    own levels, so that bits per dimension mean something.
    """
    log_p = found.log_p
    k_hat = found.k_hat
    summary: dict[str, Any] = {
        "log_evidence": mean_stderr(log_p),
        "num_importance_samples": num_samples,
    }
    if num_samples >= MIN_SAMPLES:
        summary["reliable_share"] = float(np.mean(k_hat < RELIABLE))
        summary[BOUNDS] = bracket_of(found)
    if nats_per_bit_dimension is not None:
        summary["bits_per_dimension"] = -float(log_p.mean()) / nats_per_bit_dimension
    return summary


def bracket_of(found: Evidence) -> dict[str, float]:
    """How far apart the bounds of log p(x) of an example are, nats, and the largest k-hat; where
    k-hats are high the upper bound is too low.
    """
    width = (found.eubo - found.elbo).astype(np.float64)
    known = found.k_hat[np.isfinite(found.k_hat)]
    return {
        "lower": float(found.elbo.mean(dtype=np.float64)),
        "upper": float(found.eubo.mean(dtype=np.float64)),
        "median_width": float(np.median(width)),
        "largest_width": float(width.max()),
        "largest_k_hat": float(known.max()) if len(known) else float("nan"),
    }


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the closing table."""
    k = summary["num_importance_samples"]
    share = summary.get("reliable_share")
    note = "" if share is None else f"k-hat < {RELIABLE} on {100 * share:.0f} % of examples"
    found = [Row(f"log p(x), IWAE K = {k:,}", said(summary["log_evidence"]), note)]
    if share is not None and share >= BRACKETED_SHARE:
        ends = summary[BOUNDS]
        found.append(
            Row(
                "between bounds of (ELBO, EUBO)",
                f"{ends['lower']:>11.3f} {ends['upper']:.3f}",
                f"   median width {ends['median_width']:.3f}, k-hat <= {ends['largest_k_hat']:.2f}",
            )
        )
    if "bits_per_dimension" in summary:
        found.append(Row("bits per dimension", f"{summary['bits_per_dimension']:>11.3f}"))
    return found
