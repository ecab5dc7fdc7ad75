"""Bounds of log p(x): each a function of the log-weights of one example, log_w [K] -> nats.

One member, one file; the function is called `bound` there and by the file's name here. Numbers are
keywords: where one is wanted, hand on `functools.partial(vi.bounds.ciwae, beta=0.5)`. Lower bounds
unless the file says SIDE = "upper" or "estimate".
"""

from vi_jax.bounds.ciwae import bound as ciwae
from vi_jax.bounds.cubo import bound as cubo
from vi_jax.bounds.elbo import bound as elbo
from vi_jax.bounds.eubo import bound as eubo
from vi_jax.bounds.iwae import bound as iwae
from vi_jax.bounds.jackknife import bound as jackknife
from vi_jax.bounds.miwae import bound as miwae
from vi_jax.bounds.renyi import bound as renyi
from vi_jax.bounds.sumo import bound as sumo
from vi_jax.bounds.sumo import draw_stop as sumo_stop
from vi_jax.bounds.tvo import bound as tvo
from vi_jax.bounds.tvo import log_uniform_schedule as tvo_schedule
from vi_jax.bounds.tvo import upper as tvo_upper
from vi_jax.bounds.vr_iwae import bound as vr_iwae
from vi_jax.bounds.vr_max import bound as vr_max

__all__ = [
    "ciwae",
    "cubo",
    "elbo",
    "eubo",
    "iwae",
    "jackknife",
    "miwae",
    "renyi",
    "sumo",
    "sumo_stop",
    "tvo",
    "tvo_schedule",
    "tvo_upper",
    "vr_iwae",
    "vr_max",
]
