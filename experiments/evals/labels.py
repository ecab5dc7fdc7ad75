"""The test error of models that infer the label of an example: a one-hot site `y` of the guide."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evals.base import Evaluation, Row, Subject, mean_stderr
from vi_jax.distributions import OneHotCategorical, Program

SITE = "y"


def make(subject: Subject) -> Evaluation | str:
    """The evaluation, of data with labels that some rows lack."""
    if subject.model.densities is None or not subject.config.data.num_labels:
        return "no labels are hidden"
    densities = subject.model.densities

    def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        del key
        q = densities.guide(params, x)
        if not isinstance(q, Program):
            return {}
        # latents before y at their means (Kingma et al. 2014 classify by the mean of M1 too)
        site = q.at(q.mean_path()).get(SITE)
        if not isinstance(site, OneHotCategorical):
            return {}
        wrong = jnp.argmax(site.logits) != x["label"]
        return {"wrong": wrong.astype(jnp.float32), "probs": jax.nn.softmax(site.logits)}

    return Evaluation("labels", each, lambda key, params, x, terms: terms, _summarise, _rows)


def _summarise(found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        return {}
    of_class = np.asarray(found["probs"]).mean(0)
    # 0 where q(y | x) puts all examples into one class
    entropy = -(of_class * np.log(np.maximum(of_class, 1e-12))).sum()
    return {
        "test_error": mean_stderr(np.asarray(found["wrong"])),
        "classes_used": float(np.exp(entropy)),
    }


def _rows(summary: dict[str, Any]) -> list[Row]:
    if "test_error" not in summary:
        return []
    error = summary["test_error"]
    shown = f"{100 * error['mean']:>9.2f} % ± {100 * error['stderr']:<6.2f}"
    return [Row("test error of q(y|x)", shown, f"{summary['classes_used']:.1f} classes used")]
