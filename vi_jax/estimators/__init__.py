"""Gradient estimators: `estimator(key, bound, log_joint, q, *, num_samples)` is a scalar whose
`jax.grad` is the estimator.

One estimator, one file, one function by that name. Those with more numbers take them by keyword:
give `functools.partial(vi.estimators.rebar, temperature=0.3)`. What an estimator says of itself are
attributes of the function:

    needs              the attribute that a bound must have (see `vi_jax.bounds`), "" for any bound;
                       every other bound is refused
    guides             kinds of guides, of "gaussian", "bernoulli", "one_hot" and "mixture"; any
                       where absent
    reparameterised    False where the guide need not be
    unbiased           False where the gradient is biased
"""

from vi_jax._renamed import keep_old_name
from vi_jax.estimators.disarm import disarm
from vi_jax.estimators.dreg import dreg
from vi_jax.estimators.enumerated import enumerated
from vi_jax.estimators.gdreg import gdreg
from vi_jax.estimators.gumbel_softmax import gumbel_softmax
from vi_jax.estimators.piwae import piwae
from vi_jax.estimators.price import price
from vi_jax.estimators.rebar import rebar
from vi_jax.estimators.reparam import reparam
from vi_jax.estimators.score import score
from vi_jax.estimators.stl import stl
from vi_jax.estimators.straight_through import straight_through
from vi_jax.estimators.stratified import stratified
from vi_jax.estimators.vimco import vimco

__all__ = [
    "disarm",
    "dreg",
    "enumerated",
    "gdreg",
    "gumbel_softmax",
    "piwae",
    "price",
    "rebar",
    "reparam",
    "score",
    "stl",
    "straight_through",
    "stratified",
    "vimco",
]

keep_old_name(__name__, __all__, "estimate")
