"""Sparse symmetric matrices of a fixed pattern: an order of elimination, Cholesky factors, solves.

arrow    block-tridiagonal matrices with a border
order    the order in which a pattern is factorised, and the entries of its factor
"""

from vi_jax.sparse import arrow, order

__all__ = ["arrow", "order"]
