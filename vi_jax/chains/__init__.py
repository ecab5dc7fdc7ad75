"""Gaussian Markov chains with information sites: Kalman filter and smoother, guides, and
conjugate-computation variational inference.

    chain = chains.Chain(mean, cov, transition, noise)
    q = chains.gaussian_chain(chain, chains.Sites(h, J))  # a guide over [T, D]
    q.mean, q.variance, q.log_z, q.sample(key, (100,))
"""

from vi_jax.chains.gaussian_chain import GaussianChain, gaussian_chain
from vi_jax.chains.kalman import Chain, Gains, Sites, Smoothed, log_normalizer, no_sites, smooth
from vi_jax.chains.parallel import smooth_in_chunks

__all__ = [
    "Chain",
    "Gains",
    "GaussianChain",
    "Sites",
    "Smoothed",
    "gaussian_chain",
    "log_normalizer",
    "no_sites",
    "smooth",
    "smooth_in_chunks",
]
