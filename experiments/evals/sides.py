"""log p(x) of some examples between two bounds, and what their guide loses by being amortised.

Both are asked for by flags of experiments.evaluate, since they cost gradients for each example.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import vi_jax as vi
from experiments.evals import evidence, weights
from experiments.evals.base import Row, batches, mean_stderr, said
from experiments.run import heartbeat, processes
from experiments.run.live import Count
from vi_jax.diagnostics import adaptive_evidence, annealed, reciprocal_evidence
from vi_jax.losses import log_joint
from vi_jax.training import refit_guide
from vi_jax.types import num_examples

BATCH = 20  # examples at a time: each has its own chains, or its own parameters
WEIGHTS = 1  # what the key of the samples of weights is folded with
RECIPROCAL = 2  # the same of that estimator
ADAPTED = 3  # the same of adaptive importance samples
FEW = 8  # latents at most, for importance samples from a proposal that adapts
NUM_CHAINS = 16
NUM_TEMPERATURES = 100
FINER = 4  # times as many temperatures for few latents, whose guides may be far off


class Asked(NamedTuple):
    """How many of each, and what the importance samples of them are."""

    bracket: int
    refit: int
    num_samples: int
    weights: int = 0  # samples of the weights
    train: int = 0  # training examples beside those of the split
    reciprocal: int = 0  # examples


def spread_out(x: Any, num: int) -> Any:
    """So many examples of x, evenly spaced over it, or all of them."""
    total = num_examples(x)
    rows = np.linspace(0, total - 1, min(num, total)).round().astype(int)
    return jax.tree.map(lambda leaf: leaf[rows], x)


def measure(key: jax.Array, built: Any, params: Any, asked: Asked) -> dict[str, Any]:
    """What was asked for, for the summary; a note where the model does not allow it."""
    key_bracket, key_refit = jax.random.split(key)
    summary: dict[str, Any] = {}
    if asked.bracket:
        summary |= _tried(
            "bracket",
            "bracket",
            lambda: bracket(key_bracket, built, params, asked.bracket, asked.num_samples),
        )
    if asked.reciprocal:
        key_own = jax.random.fold_in(key, RECIPROCAL)
        num = asked.reciprocal
        summary |= _tried(
            "reciprocal",
            "reciprocal",
            lambda: reciprocal(key_own, built, params, num, asked.num_samples),
        )
    if asked.refit:
        summary |= _tried("refit", "refit", lambda: refit(key_refit, built, params, asked.refit))
    key_weights, key_train = jax.random.split(jax.random.fold_in(key, WEIGHTS))
    counts = {"num_samples": asked.num_samples, "num_weights": asked.weights}
    if asked.weights:
        summary |= _tried(
            "weights",
            "predictive",
            lambda: weights.predictive(key_weights, built, params, **counts),
        )
    if asked.train:
        summary |= _tried(
            "train",
            "train_gap",
            lambda: weights.gap(key_train, built, params, num_train=asked.train, **counts),
        )
    return summary


def _tried(flag: str, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result, or a note of the model's own reason against it."""
    try:
        return {name: compute()}
    except ValueError as error:
        processes.say(f"note: no --{flag}: {error}")
        return {}


def bracket(key: jax.Array, built: Any, params: Any, num: int, num_samples: int) -> dict[str, Any]:
    """Annealed importance sampling of `num` examples from below, and of as many simulated ones from
    both sides (Grosse et al. 2015; Wu et al. 2017). Of a model of few latents it begins at the
    prior, since the guide may be far off, and there are importance samples from a proposal that
    adapts.

    Raises:
      ValueError: the model has no densities, or its latents are not real.
    """
    key_lower, key_simulated, key_samples = jax.random.split(key, 3)
    x = spread_out(built.x, num)
    model = built.model
    vi.losses.densities_of(model, "a bracket")
    is_few = _num_latents(built, params, x) <= FEW
    num_temperatures = NUM_TEMPERATURES * (FINER if is_few else 1)
    chains = {"num_chains": NUM_CHAINS, "num_temperatures": num_temperatures}

    def lower(key: jax.Array, params: Any, x: Any) -> Any:
        q = model.densities.guide(params, x)
        start = model.densities.prior(params, x) if is_few else None
        return annealed.annealed_lower(key, log_joint(model, params, x), q, start=start, **chains)

    def simulated(key: jax.Array, params: Any, x: Any) -> Any:
        return annealed.simulated_sides(key, model, params, x, from_prior=is_few, **chains)

    (below, _) = by_example(lower, key_lower, params, x, "annealed importance sampling")
    sides = by_example(simulated, key_simulated, params, x, "simulated, from both sides")
    weighted = _weighted(key_samples, built, params, x, num_samples)
    few = {}
    if is_few:
        adapted = _adapted(jax.random.fold_in(key, ADAPTED), built, params, x)
        few = {
            "adaptive": mean_stderr(adapted.log_p),
            "ais_above_adaptive": mean_stderr(below - adapted.log_p),
            "adaptive_effective": float(np.median(adapted.effective)),
        }
    return {
        "num_examples": num_examples(x),
        **few,
        "ais": mean_stderr(below),
        "importance_sampling": mean_stderr(weighted),
        "ais_above_importance_sampling": mean_stderr(below - weighted),
        "simulated_lower": mean_stderr(sides.lower),
        "simulated_upper": mean_stderr(sides.upper),
        "simulated_gap": mean_stderr(sides.upper - sides.lower),
        "acceptance": float(np.mean(sides.acceptance)),
    }


def reciprocal(
    key: jax.Array, built: Any, params: Any, num: int, num_samples: int
) -> dict[str, Any]:
    """Appendix D of Kingma & Welling (2013) on `num` examples, and its error: how far it is above
    importance samples of the same, from a proposal that adapts where the latents are few.

    Raises:
      ValueError: the model has no densities, or its latents are not real or too many.
    """
    key_own, key_samples = jax.random.split(key)
    x = spread_out(built.x, num)
    model = built.model

    def one(key: jax.Array, params: Any, x: Any) -> Any:
        joint = log_joint(model, params, x)
        return reciprocal_evidence(key, joint, model.densities.guide(params, x))

    vi.losses.densities_of(model, "appendix D")
    found = by_example(one, key_own, params, x, "posterior samples")
    if is_few := _num_latents(built, params, x) <= FEW:
        weighted = _adapted(key_samples, built, params, x).log_p
    else:
        weighted = _weighted(key_samples, built, params, x, num_samples)
    return {
        "num_examples": num_examples(x),
        "log_evidence": mean_stderr(found.log_p),
        "error": mean_stderr(found.log_p - weighted),
        "against": "adaptive importance sampling" if is_few else "importance sampling",
        "acceptance": float(np.mean(found.acceptance)),
    }


def _weighted(key: jax.Array, built: Any, params: Any, x: Any, num_samples: int) -> np.ndarray:
    """log p(x) by importance samples, [N]."""
    estimate = evidence.make_log_evidence(
        built.model, num_samples=num_samples, batch_size=built.config.eval.batch_size
    )
    return estimate(key, params, x).log_p


def _num_latents(built: Any, params: Any, x: Any) -> int:
    """Of one example."""
    one = jax.tree.map(lambda leaf: leaf[0], x)
    sample = lambda: built.model.densities.guide(params, one).sample(jax.random.key(0))  # noqa: E731
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(sample)))


def _adapted(key: jax.Array, built: Any, params: Any, x: Any) -> Any:
    """Adaptive importance samples of each example, from its guide and the prior."""
    densities = built.model.densities

    def one(key: jax.Array, params: Any, x: Any) -> Any:
        q = densities.guide(params, x)
        others = (densities.prior(params, x),)
        return adaptive_evidence(key, log_joint(built.model, params, x), q, others=others)

    return by_example(one, key, params, x, "adaptive importance sampling")


def refit(key: jax.Array, built: Any, params: Any, num: int) -> dict[str, Any]:
    """The amortisation gap of `num` examples (Cremer et al. 2018).

    Raises:
      ValueError: the model has no densities, or its guide is not reparameterised.
    """
    x = spread_out(built.x, num)

    def one(key: jax.Array, params: Any, x: Any) -> Any:
        return refit_guide(key, built.model, params, x)

    found = by_example(one, key, params, x, "refitting the guide")
    return {
        "num_examples": num_examples(x),
        "gap": mean_stderr(found.refitted - found.amortised),
        "gap_halfway": mean_stderr(found.halfway - found.amortised),
    }


def by_example(
    one: Callable[[jax.Array, Any, Any], Any],
    key: jax.Array,
    params: Any,
    x: Any,
    text: str,
    *,
    batch_size: int = BATCH,
) -> Any:
    """`one` of every example, with a key for each, some at a time in one program."""
    num = num_examples(x)
    keys = jax.random.split(key, num)
    program = jax.jit(jax.vmap(one, in_axes=(0, None, 0)))
    parts = []
    with Count(text, num, "examples", first=0.0) as count, heartbeat.compiling(text):
        for rows, counted in batches(num, batch_size):
            some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], x)
            part = jax.device_get(program(keys[rows], params, some))
            parts.append(jax.tree.map(lambda leaf, counted=counted: leaf[counted], part))
            count.add(int(counted.sum()))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the table."""
    found = []
    if "bracket" in summary:
        sides = summary["bracket"]
        num = sides["num_examples"]
        gap = sides["simulated_gap"]
        weighted = sides["importance_sampling"]["mean"]
        note = f"importance sampling of the same {weighted:.3f}"
        if "adaptive" in sides:
            note += f", {sides['adaptive']['mean']:.3f} from proposals that adapt"
        found.append(Row(f"log p(x) by annealing, {num} of them", said(sides["ais"]), note))
        found.append(
            Row(
                "upper less lower, simulated",
                said(gap),
                "bounds the error of the line above on what the model makes",
            )
        )
    if "reciprocal" in summary:
        other = summary["reciprocal"]
        error = other["error"]
        title = f"log p(x) by appendix D, {other['num_examples']} of them"
        note = f"above {other['against']} by {error['mean']:.3f} ± {error['stderr']:.3f}"
        found.append(Row(title, said(other["log_evidence"]), note))
    if "refit" in summary:
        lost = summary["refit"]
        half = lost["gap_halfway"]["mean"]
        found.append(
            Row(
                f"amortisation gap, {lost['num_examples']} of them",
                said(lost["gap"]),
                f"{half:.3f} after half of the steps",
            )
        )
    return found + weights.rows(summary)
