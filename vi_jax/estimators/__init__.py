"""Gradient estimators: `estimate(key, bound, log_joint, q, *, num_samples)` is a scalar whose
`jax.grad` is the estimator.

One member, one file; the function is called `estimate` there and by the file's name here. A file
says which bounds it is valid for (BOUNDS; any where it says nothing), which guides (GUIDES),
whether the guide has to be reparameterised, and whether the gradient is unbiased (UNBIASED = False
where not); what it is not valid for it refuses. Estimators with more numbers take them by
keyword: hand on `functools.partial(vi.estimators.rebar, temperature=0.3)`.
"""

from vi_jax.estimators.disarm import estimate as disarm
from vi_jax.estimators.dreg import estimate as dreg
from vi_jax.estimators.enumerated import estimate as enumerated
from vi_jax.estimators.gdreg import estimate as gdreg
from vi_jax.estimators.gumbel_softmax import estimate as gumbel_softmax
from vi_jax.estimators.piwae import estimate as piwae
from vi_jax.estimators.price import estimate as price
from vi_jax.estimators.rebar import estimate as rebar
from vi_jax.estimators.reparam import estimate as reparam
from vi_jax.estimators.score import estimate as score
from vi_jax.estimators.stl import estimate as stl
from vi_jax.estimators.straight_through import estimate as straight_through
from vi_jax.estimators.vimco import estimate as vimco

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
    "vimco",
]
