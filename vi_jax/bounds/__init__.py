"""Bounds of log p(x): each a function of the log-weights of one example, log_w [K] -> nats, higher is better.

One member, one file; the function is called `bound` there and by the file's name here.
"""

from vi_jax.bounds.elbo import bound as elbo
from vi_jax.bounds.iwae import bound as iwae

__all__ = ["elbo", "iwae"]
