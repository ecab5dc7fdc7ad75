"""log p(x) under samples of the weights, of a run of full variational Bayes, and how far training
examples are above those of the split.

Both are asked for by flags of experiments.evaluate: they cost importance samples of their own.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments.evals import evidence
from experiments.evals.base import Row, mean_stderr, said
from experiments.run import session
from vi_jax.types import num_examples

TRAINING = 1  # what the key of the binarisation of training examples is folded with


def has_posterior(params: Any) -> bool:
    """Whether these are the parameters of `vi_jax.losses.variational_weights`."""
    return isinstance(params, dict) and set(params) == {"mean", "log_scale"}


def log_p(
    key: jax.Array, built: Any, params: Any, x: Any, *, num_samples: int, num_weights: int
) -> np.ndarray:
    """log p(x) of each example, nats, [N]: by K importance samples at the parameters, or, of S
    samples of the weights, log (1/S) sum_s p(x | w_s), each by K / S of them, rounded up: the
    bound of log p(x) of K samples of weights and latents together.

    Args:
      num_samples: K.
      num_weights: S; 0: at the parameters as they stand.

    Raises:
      ValueError: the parameters have no posterior.
    """
    if num_weights and not has_posterior(params):
        raise ValueError("the weights of this run are a point estimate.")
    each = -(-num_samples // max(num_weights, 1))
    estimate = evidence.make_log_evidence(
        built.model, num_samples=each, batch_size=built.config.eval.batch_size
    )
    if not num_weights:
        return estimate(key, params, x).log_p
    draw = jax.jit(vi.losses.draw_weights)
    found = []
    for key_weights, key_z in jax.random.split(key, (num_weights, 2)):
        found.append(estimate(key_z, draw(key_weights, params), x).log_p)
    return np.asarray(vi.losses.predictive(jnp.stack(found)))


def predictive(
    key: jax.Array, built: Any, params: Any, *, num_samples: int, num_weights: int
) -> dict[str, Any]:
    """The predictive log p(x) of the split; raises ValueError as `log_p`."""
    found = log_p(key, built, params, built.x, num_samples=num_samples, num_weights=num_weights)
    return {**mean_stderr(found), "num_weights": num_weights}


def gap(
    key: jax.Array, built: Any, params: Any, *, num_train: int, num_samples: int, num_weights: int
) -> dict[str, Any]:
    """log p(x) of training examples, evenly spaced and at most `num_train`, less that of as many of
    the split: what the model has learned of the training examples alone. At the parameters of a
    point estimate, whatever `num_weights`.
    """
    key_train, key_split = jax.random.split(key)
    train = built.dataset.train
    rows = slice(0, None, max(train.num // num_train, 1))
    own = session.make_evaluation_rows(built.config, built.dataset)(train, rows, TRAINING)
    own = jax.tree.map(lambda leaf: leaf[:num_train], own)
    every = max(num_examples(built.x) // num_examples(own), 1)
    others = jax.tree.map(lambda leaf: leaf[::every][: num_examples(own)], built.x)
    used = num_weights if has_posterior(params) else 0
    counts = {"num_samples": num_samples, "num_weights": used}
    of_train = log_p(key_train, built, params, own, **counts)
    of_split = log_p(key_split, built, params, others, **counts)
    found = [mean_stderr(of_train), mean_stderr(of_split)]
    return {
        "num_examples": len(of_train),
        "train": found[0],
        "mean": found[0]["mean"] - found[1]["mean"],
        "stderr": float(np.hypot(found[0]["stderr"], found[1]["stderr"])),
    }


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the table."""
    found = []
    if "predictive" in summary:
        value = summary["predictive"]
        title = f"log p(x), {value['num_weights']} samples of weights"
        found.append(Row(title, said(value)))
    if "train_gap" in summary:
        value = summary["train_gap"]
        title = f"log p(x), {value['num_examples']} of training"
        found.append(Row(title, said(value["train"]), f"above the split's by {value['mean']:.3f}"))
    return found
