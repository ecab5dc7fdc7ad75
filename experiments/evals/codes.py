"""The use of a codebook: how many codes are chosen over a whole split, and how evenly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evals.base import Evaluation, Row, Subject
from vi_jax.distributions import OneHotCategorical

PERPLEXITY = "code_perplexity"
USED = "codes_used"
TOTAL = "num_codes"


def make(subject: Subject) -> Evaluation | str:
    """The evaluation; it is empty where the guide is not over one-hot codes."""
    model = subject.model
    if model.densities is None:
        return "the model has no guide q(z | x)"
    guide = model.densities.guide

    def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        del key
        q = guide(params, x)
        q = getattr(q, "base_dist", q)
        if not isinstance(q, OneHotCategorical):
            return {}
        chosen = jax.nn.one_hot(q.logits.argmax(-1), q.logits.shape[-1])
        return {"code_counts": chosen.reshape(-1, chosen.shape[-1]).sum(0)}

    def reduce(key: jax.Array, params: Any, x: Any, terms: dict[str, Any]) -> dict[str, Any]:
        del key, params, x
        return {name: jnp.sum(counts, 0) for name, counts in terms.items()}

    return Evaluation("codes", each, reduce, _summarise, _rows)


def _summarise(found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        return {}
    counts = np.asarray(found["code_counts"], np.float64)
    shares = counts[counts > 0] / counts.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return {USED: int((counts > 0).sum()), TOTAL: counts.size, PERPLEXITY: perplexity}


def _rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the closing table."""
    if USED not in summary:
        return []
    used = summary[USED]
    total = summary[TOTAL]
    share = f"{100 * used / total:.0f} %"
    return [
        Row("codes used over the split", f"{used:>7} of {total:<3}", share),
        Row("perplexity of the codes", f"{summary[PERPLEXITY]:>11.2f}"),
    ]
