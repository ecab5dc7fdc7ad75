"""Gradient estimators: `estimate(key, bound, log_joint, q, *, num_samples)` is a scalar whose `jax.grad` is the estimator.

One member, one file; the function is called `estimate` there and by the file's name here.
"""

from vi_jax.estimators.reparam import estimate as reparam

__all__ = ["reparam"]
