"""What a neural topic model is judged by, on documents that it was not trained on: the words of
second halves, what is lost by the encoder, and log p(words) of single documents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import vi_jax as vi
from experiments.evals import elbo, evidence, latents
from experiments.evals.base import (
    Evaluation,
    Meter,
    Row,
    Subject,
    make_meter,
    mean_stderr,
)
from experiments.evals.sides import by_example
from experiments.topics.neural_data import Held
from vi_jax.diagnostics.psis import k_threshold
from vi_jax.losses import densities_of, log_joint

MOST_ITERATIONS = 200  # of the fixed point of amortised LDA, where it counts as ended
Guides = Callable[[jax.Array, Any, Any], Any]  # (key, params, one document) -> guide


class Predicted(NamedTuple):
    """-log p of the second half's tokens of each document, summed, nats."""

    mean: jax.Array  # of the probabilities averaged over samples of the shares
    plug_in: jax.Array  # of those at the mean of the latents


class Completing:
    """The evaluation of second halves, as `make_meter` takes it."""

    __name__ = "completion"

    def __init__(self, held: Held) -> None:
        self._held = held

    def make(self, subject: Subject) -> Evaluation | str:
        """The evaluation, where documents are held out."""
        if not self._held.has_halves:
            return "no documents are held out"
        num_samples = subject.config.eval.num_samples

        def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
            q = densities_of(subject.model, "completion").guide(params, x["first"])
            found = predict(key, subject.model, params, x, q, num_samples=num_samples)
            lengths = {half: jnp.sum(x[half]["counts"]) for half in ("first", "second")}
            return {"nll": found.mean, "nll_plug_in": found.plug_in, **lengths}

        def reduce(key: jax.Array, params: Any, x: Any, terms: dict[str, Any]) -> dict[str, Any]:
            del key, params, x
            return terms

        return Evaluation("completion", each, reduce, _summarise, _no_rows)


def _summarise(found: dict[str, Any]) -> dict[str, Any]:
    done = completed(found, "nll")
    return {"perplexity": done.ppl_tok, "perplexity_by_documents": done.ppl_doc}


def _no_rows(summary: dict[str, Any]) -> list[Row]:
    del summary
    return []


def completed(found: dict[str, Any], name: str) -> vi.topics.Completion:
    """The perplexity of the arrays of `Completing`."""
    return vi.topics.of_nll(found[name], found["first"], found["second"])


def predict(
    key: jax.Array, model: vi.Model, params: Any, x: Any, q: Any, *, num_samples: int
) -> Predicted:
    """The words of a second half under the guide of the first: a distribution over the vocabulary,
    and no bound.
    """
    second = x["second"]
    decode = densities_of(model, "completion").decode

    def log_probs(z: Any) -> jax.Array:
        return decode(params, x["first"], z).log_probs[second["ids"]]

    sampled = jax.vmap(log_probs)(q.sample(key, (num_samples,)))  # [S, L]
    averaged = jax.nn.logsumexp(sampled, 0) - jnp.log(num_samples)
    counts = second["counts"]
    return Predicted(-jnp.sum(counts * averaged), -jnp.sum(counts * log_probs(q.mean)))


def make_neural_meter(subject: Subject, held: Held) -> Meter:
    """The evaluations of a training: ELBO and KL, active latents, second halves."""
    return make_meter(subject, (elbo, latents, Completing(held)))


def refined_guides(config: Any, model: vi.Model, num_words: int) -> Guides:
    """Guides fitted to one document, the decoder held: the end of the fixed point for amortised
    LDA, a hundred steps of Adam on mean and scale for the others.
    """
    if config.model["name"] != "amortised_lda":
        return lambda key, params, x: vi.training.refit_normal(key, model, params, x)
    settings = {name: value for name, value in config.model.items() if name != "name"}
    settings["num_iterations"] = MOST_ITERATIONS
    ended = densities_of(vi.models.documents.amortised_lda(num_words, **settings), "refining")
    return lambda key, params, x: ended.guide(params, x)


def whole_of(x: dict[str, Any]) -> dict[str, Any]:
    """Rows without their halves."""
    return {name: leaf for name, leaf in x.items() if name not in ("first", "second")}


class Refined(NamedTuple):
    """What some documents gain by guides of their own in the place of the encoder's."""

    gap: dict[str, float]  # of the ELBO, nats a document: the amortisation gap
    encoder: vi.topics.Completion | None  # of the same documents, None without halves
    refined: vi.topics.Completion | None


def refine(
    key: jax.Array, model: vi.Model, params: Any, held: Held, guides: Guides, config: Any
) -> Refined | None:
    """The gain of the first `config.eval.refined_docs` documents; None where none are asked for."""
    spec = config.eval
    num = min(spec.refined_docs, len(held.lengths))
    if num < 2:
        return None
    densities = densities_of(model, "refining")

    def one(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        key_whole, key_half, key_elbo, key_words = jax.random.split(key, 4)
        whole = whole_of(x)
        joint = log_joint(model, params, whole)

        def bound(q: Any) -> jax.Array:
            return vi.evidence.elbo(key_elbo, joint, q, num_samples=spec.num_samples)

        own = guides(key_whole, params, whole)
        found = {"gap": bound(own) - bound(densities.guide(params, whole))}
        if not held.has_halves:
            return found
        first = x["first"]
        by_guide = {
            "encoder": densities.guide(params, first),
            "refined": guides(key_half, params, first),
        }
        for name, q in by_guide.items():
            of_words = predict(key_words, model, params, x, q, num_samples=spec.num_samples)
            found[name] = of_words.mean
        lengths = {half: jnp.sum(x[half]["counts"]) for half in ("first", "second")}
        return {**found, **lengths}

    some = jax.tree.map(lambda leaf: leaf[:num], held.x)
    found = by_example(one, key, params, some, "refining shares", batch_size=spec.batch_size)
    both = [completed(found, name) if held.has_halves else None for name in ("encoder", "refined")]
    return Refined(mean_stderr(found["gap"]), *both)


def document_evidence(
    key: jax.Array, model: vi.Model, params: Any, x: Any, config: Any
) -> vi.topics.Evidence:
    """Bounds of log p(words) of documents and k-hat of their shares, by importance samples from the
    encoder.
    """
    num_samples = config.eval.num_importance_samples
    make = evidence.make_log_evidence(
        model, num_samples=num_samples, batch_size=config.eval.batch_size
    )
    found = make(key, params, jax.tree.map(jnp.asarray, x))
    gap = found.log_p - found.elbo
    return vi.topics.Evidence(
        found.elbo, found.log_p, gap, found.k_hat, float(k_threshold(num_samples))
    )
