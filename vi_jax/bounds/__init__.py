"""Bounds of log p(x): functions of the log-weights of one example, log_w [K] -> nats, a scalar.

One bound, one file, one function by that name. Numbers are keywords: where a bound is expected,
give `functools.partial(vi.bounds.ciwae, beta=0.5)`.

What estimators and laws need to know of a bound are attributes of the function, and one of your own
says it likewise (`my_bound.smooth = True`); `functools.partial`, `functools.wraps` and `jax.jit`
are looked through.

    side           "lower" (where nothing is said), "upper" or "estimate" of log p(x)
    smooth         twice differentiable in log_w: for `gdreg`
    linear         the mean of log_w: for `stl`, `score`, `disarm`, `rebar`, `price`, `enumerated`
    log_mean       the log of the mean weight: for `vimco`
    grouped        the mean of IWAE over groups of samples: for `piwae`
    path_factor    (g [K], its numbers) -> 1 - h / g [K], where g_k and h_k are the first and second
                   derivatives in log w_k: for `dreg`, and `gdreg` takes it where there is one
    example        the numbers without a default, at values for which all laws hold at any K
"""

from vi_jax._renamed import keep_old_name
from vi_jax.bounds.ciwae import ciwae
from vi_jax.bounds.cubo import cubo
from vi_jax.bounds.elbo import elbo
from vi_jax.bounds.eubo import eubo
from vi_jax.bounds.iwae import iwae
from vi_jax.bounds.jackknife import jackknife
from vi_jax.bounds.miwae import miwae
from vi_jax.bounds.renyi import renyi
from vi_jax.bounds.sumo import sumo, sumo_stop
from vi_jax.bounds.tvo import tvo, tvo_schedule, tvo_upper
from vi_jax.bounds.vr_iwae import vr_iwae
from vi_jax.bounds.vr_max import vr_max

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

keep_old_name(__name__, __all__, "bound")
