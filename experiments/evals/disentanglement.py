"""Disentanglement: the mutual information gap on data whose factors are known."""

from typing import Any

import jax
import numpy as np

from experiments.data.base import Factors
from experiments.evals.base import Evaluation, Row, Subject, said
from vi_jax.diagnostics.disentanglement import Gap, factor_information, information_gap

ORDERED = "mig"  # of the factors that are in an order; the shape is not
ALL = "mig_with_categories"
OF_FACTOR = "mig_of_factor"


def make(subject: Subject) -> Evaluation | str:
    """The evaluation, of data of known factors; it is empty where the guide is not over one vector
    of two or more independent latents.
    """
    model = subject.model
    factors = subject.factors
    if factors is None:
        return "the data have no known factors"
    if model.densities is None:
        return "the model has no guide q(z | x)"
    guide = model.densities.guide
    batch_size = subject.config.eval.batch_size

    def reduce(key: jax.Array, params: Any, x: Any, terms: dict[str, Any]) -> dict[str, Any]:
        del terms
        if not _factorises(guide(params, jax.tree.map(lambda leaf: leaf[0], x))):
            return {}
        found = factor_information(key, model, params, x, factors.values, batch_size=batch_size)
        return {"factor_information": found}

    def summarise(found: dict[str, Any]) -> dict[str, Any]:
        return _summarise(found["factor_information"], factors) if found else {}

    return Evaluation(
        "disentanglement", lambda key, params, x: {}, reduce, summarise, lambda s: _rows(s, factors)
    )


def _factorises(q: Any) -> bool:
    """Whether q is over one vector of independent coordinates, at least two."""
    if getattr(q, "reinterpreted_batch_ndims", None) != 1:
        return False
    shape = tuple(q.event_shape)
    return len(shape) == 1 and max(shape) > 1


def _summarise(information: np.ndarray, factors: Factors) -> dict[str, Any]:
    """The gaps without and with the factors that are categories, and that of each factor."""
    ordered = np.flatnonzero(factors.is_ordered)
    of_ordered = information_gap(information[..., ordered], factors.values[:, ordered])
    whole = information_gap(information, factors.values)
    of_factor = dict(zip(factors.names, whole.of_factor.tolist(), strict=True))
    return {ORDERED: _pair(of_ordered), ALL: _pair(whole), OF_FACTOR: of_factor}


def _pair(gap: Gap) -> dict[str, float]:
    return {"mean": gap.mean, "stderr": gap.stderr}


def _rows(summary: dict[str, Any], factors: Factors) -> list[Row]:
    """The lines of the closing table, which name the factors that are left out."""
    if ORDERED not in summary:
        return []
    pairs = zip(factors.names, factors.is_ordered, strict=True)
    left_out = ", ".join(name for name, is_ordered in pairs if not is_ordered)
    shares = ", ".join(f"{name} {gap:.2f}" for name, gap in summary[OF_FACTOR].items())
    found = [Row("mutual information gap (MIG)", said(summary[ORDERED]), shares)]
    if left_out:
        found[0] = Row(f"MIG without {left_out}", said(summary[ORDERED]), shares)
        found.append(Row(f"MIG with {left_out}", said(summary[ALL])))
    return found
