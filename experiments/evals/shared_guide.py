"""The guide of an example, found once for all evaluations that ask for it: where it is a fixed
point and no network, it is most of what they compile and compute.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

import vi_jax as vi


class SharedGuide:
    """densities.guide, which answers from what it found before while one example is at hand."""

    def __init__(self, model: vi.Model) -> None:
        assert model.densities is not None
        self._guide = model.densities.guide
        self._known: tuple[Any, Any] | None = None  # the arguments, and q
        self.model = model._replace(densities=model.densities._replace(guide=self))

    def __call__(self, params: Any, x: Any) -> Any:
        if self._known is not None:
            (given, q) = self._known
            if _are_same(given, (params, x)):
                return q
        return self._guide(params, x)

    @contextmanager
    def of(self, params: Any, x: Any) -> Iterator[None]:
        """Within it, that of these very arrays is found once."""
        self._known = ((params, x), self._guide(params, x))
        try:
            yield
        finally:
            self._known = None


def _are_same(some: Any, others: Any) -> bool:
    """Whether they are trees of the same form and of the same objects."""
    form: Any = jax.tree.structure(some)
    leaves = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=False)
    return bool(form == jax.tree.structure(others)) and all(a is b for a, b in leaves)
