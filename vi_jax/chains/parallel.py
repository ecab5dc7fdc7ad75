"""The Kalman smoother by associative scans, in chunks of steps: log(chunk) deep for each chunk.

Elements of the filter hold p(z_t | z_(t-1), sites) and what the sites say of z_(t-1), those of the
smoother p(z_t | z_(t+1), sites up to t) (Sarkka & Garcia-Fernandez 2021, lemmas 8 and 10, here with
information sites and with the normaliser). The chunks follow each other, so that neither the memory
nor the time to compile grows with T.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.chains.kalman import Chain, Gains, Sites, Smoothed, per_step, update
from vi_jax.chains.small import symmetric
from vi_jax.types import Array

CHUNK = 256  # steps


class _Forward(NamedTuple):
    """Some steps in a row: z_last given z_before, and the sites' log E given z_before."""

    slope: Array  # E[z_last | z_before] = slope z_before + offset
    offset: Array
    cov: Array
    h: Array  # log E[sites | z_before] = h' z_before - z_before' J z_before / 2 + log_z
    J: Array
    log_z: Array


class _Backward(NamedTuple):
    """Some steps in a row: z_first given z_after = slope z_after + offset, and its covariance."""

    slope: Array
    offset: Array
    cov: Array


def smooth_in_chunks(chain: Chain, sites: Sites, *, chunk: int = CHUNK) -> tuple[Smoothed, Gains]:
    """The same as `smooth`, by associative scans over chunks of steps.

    Worth its time to compile on long chains and on accelerators; its sums have another order.

    Args:
      chain, sites: as of `smooth`.
      chunk: steps of a chunk.

    Raises:
      ValueError: chunk is below 1.
    """
    if chunk < 1:
        raise ValueError(f"smooth_in_chunks expects chunks of at least one step; got {chunk}.")
    num_steps = sites.h.shape[0]
    transitions, noises = per_step(chain, num_steps)
    # 1. forward: what follows step 1, from its filtered moments on
    first = update(chain.mean, chain.cov, sites.h[0], sites.J[0])
    elements = jax.vmap(_element)(transitions, noises, sites.h[1:], sites.J[1:])
    size = min(chunk, max(num_steps - 1, 1))
    (means, covs, log_zs) = _filtered(first, elements, size)
    means = jnp.concatenate([first[0][None], means])
    covs = jnp.concatenate([first[1][None], covs])
    log_z = jnp.concatenate([first[2][None], log_zs])[-1]
    # 2. backward: what comes before the last step
    back = jax.vmap(_conditional)(means[:-1], covs[:-1], transitions, noises)
    last = (means[-1], covs[-1])
    smoothed = _smoothed(last, back, size)
    mean = jnp.concatenate([smoothed[0], last[0][None]])
    cov = jnp.concatenate([smoothed[1], last[1][None]])
    cross = back.slope @ cov[1:]
    return Smoothed(mean, cov, cross, log_z), Gains(covs, back.slope)


def _element(transition: Array, noise: Array, h: Array, J: Array) -> _Forward:
    """One step with its site."""
    zeros = jnp.zeros_like(h)
    offset, cov, log_z = update(zeros, noise, h, J)
    pulled = J @ cov
    kept = jnp.eye(h.shape[-1], dtype=h.dtype) - pulled  # (I + J Q)^-1
    return _Forward(
        kept.T @ transition,
        offset,
        cov,
        transition.T @ (kept @ h),
        symmetric(transition.T @ (kept @ J) @ transition),
        log_z,
    )


def _joined(a: _Forward, b: _Forward) -> _Forward:
    """The steps of `a` and then those of `b`."""
    identity = jnp.eye(a.offset.shape[-1], dtype=a.cov.dtype)
    mean, cov, log_z = update(a.offset, a.cov, b.h, b.J)
    kept = linalg.inv(identity + a.cov @ b.J)
    through = kept.T @ (b.h - b.J @ a.offset)
    return _Forward(
        b.slope @ kept @ a.slope,
        b.slope @ mean + b.offset,
        symmetric(b.slope @ cov @ b.slope.T + b.cov),
        a.h + a.slope.T @ through,
        symmetric(a.J + a.slope.T @ (kept.T @ b.J) @ a.slope),
        a.log_z + b.log_z + log_z,
    )


def _conditional(mean: Array, cov: Array, transition: Array, noise: Array) -> _Backward:
    """z_t given z_(t+1) and the sites up to t."""
    predicted = symmetric(transition @ cov @ transition.T + noise)
    gain = linalg.solve(predicted, transition @ cov).T
    offset = mean - gain @ (transition @ mean)
    return _Backward(gain, offset, symmetric(cov - gain @ predicted @ gain.T))


def _before(b: _Backward, a: _Backward) -> _Backward:
    """The steps of `a`, which come before those of `b`."""
    return _Backward(
        a.slope @ b.slope,
        a.slope @ b.offset + a.offset,
        symmetric(a.slope @ b.cov @ a.slope.T + a.cov),
    )


def _in_chunks(elements: Any, chunk: int, *, at_front: bool) -> tuple[Any, int]:
    """Elements [n, ...] -> [ceil(n / chunk), chunk, ...], filled up with zeros, and n."""
    num = jax.tree.leaves(elements)[0].shape[0]
    missing = -num % chunk
    pad = (missing, 0) if at_front else (0, missing)

    def one(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [pad] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(-1, chunk, *leaf.shape[1:])

    return jax.tree.map(one, elements), num


def _filtered(
    first: tuple[Array, Array, Array], elements: _Forward, chunk: int
) -> tuple[Array, Array, Array]:
    """Filtered means and covariances of the steps of the elements, and log Z up to each."""
    chunks, num = _in_chunks(elements, chunk, at_front=False)

    def one(before: tuple[Array, Array, Array], some: _Forward) -> Any:
        prefix = jax.lax.associative_scan(jax.vmap(_joined), some)
        zeros = jnp.zeros_like(before[1])
        known = _Forward(zeros, before[0], before[1], before[0] * 0.0, zeros, before[2])
        after = jax.vmap(_joined, (None, 0))(known, prefix)
        out = (after.offset, after.cov, after.log_z)
        return jax.tree.map(lambda leaf: leaf[-1], out), out

    _, found = jax.lax.scan(one, first, chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num], found)


def _smoothed(last: tuple[Array, Array], elements: _Backward, chunk: int) -> tuple[Array, Array]:
    """Smoothed means and covariances of the steps of the elements."""
    chunks, num = _in_chunks(elements, chunk, at_front=True)

    def one(after: tuple[Array, Array], some: _Backward) -> Any:
        suffix = jax.lax.associative_scan(jax.vmap(_before), some, reverse=True)
        known = _Backward(jnp.zeros_like(after[1]), *after)
        found = jax.vmap(_before, (None, 0))(known, suffix)
        out = (found.offset, found.cov)
        return jax.tree.map(lambda leaf: leaf[0], out), out

    _, found = jax.lax.scan(one, last, chunks, reverse=True)
    missing = -num % chunk
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[missing:], found)
