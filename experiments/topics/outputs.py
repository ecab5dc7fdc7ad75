"""What a fitted topic model leaves: numbers with their errors, topics, shares, words, and the forms
that other tools read.
"""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vi_jax as vi
from vi_jax import files

TOPICS = "topics.npz"
SHARES = "doc_topics.npy"
WORDS_TEXT = "top_words.txt"
WORDS_JSON = "top_words.json"
SUMMARY = "summary.json"
EXEMPLARS = "exemplars.txt"
LDAVIS = "ldavis.json"
KEYS = "mallet_keys.txt"
MALLET_SHARES = "mallet_doc_topics.txt"
SHARES_TABLE = "doc_topics.csv"
EVIDENCE = "doc_evidence.npz"
NUM_SHOWN = 10
NUM_WORDS = 25
FREX_WEIGHT = 0.5  # of exclusivity against frequency (Bischof & Airoldi 2012)
NUM_RELEVANT = 30
NUM_SAMPLES = 500  # of the shares of a document, for its k-hat


def read_json(path: Path) -> dict[str, Any]:
    """A file of ours."""
    return json.loads(files.read_text(path))


def summarise(fit: Any, loaded: Any) -> dict[str, Any]:
    """Every number of the fit: the bound, completion with its errors, coherence beside diversity,
    topics used and twins.
    """
    summary: dict[str, Any] = {
        **of_topics(fit, loaded),
        "num_sweeps": len(fit.history),
        "converged": fit.converged,
        "starts": np.asarray(fit.starts, float).tolist(),
        "found": np.asarray(fit.found, float).tolist(),
    }
    if fit.method != "ctm":
        summary["alpha_sum"] = float(np.sum(fit.alpha))
    if math.isfinite(fit.elbo):
        summary["elbo_per_token"] = fit.elbo / fit.num_tokens
    if loaded.halves is not None:
        summary["completion"] = plain(vi.topics.completion(fit, *loaded.halves))
    return summary


def of_topics(fit: Any, loaded: Any) -> dict[str, Any]:
    """The numbers that every topic model has, coherence beside diversity."""
    coherence = vi.topics.npmi(fit.topics_mean, loaded.train)
    found: dict[str, Any] = {
        "method": fit.method,
        "num_topics": fit.num_topics,
        "num_words": fit.num_words,
        "num_docs": fit.num_docs,
        "num_tokens": fit.num_tokens,
        "seconds": fit.seconds,
        "npmi": float(np.mean(coherence)),
        "npmi_by_topic": coherence.tolist(),
        "diversity": vi.topics.diversity(fit.topics_mean),
        "topics_used": fit.num_topics - len(fit.unused),
        "unused": fit.unused,
        "twins": [list(pair) for pair in fit.twins],
    }
    order = loaded.corpus.parts["train"].order
    if order is not None:
        texts = [doc.tolist() for doc in order]
        found["c_v"] = float(np.mean(vi.topics.c_v(fit.topics_mean, texts)))
    return found


def plain(found: vi.topics.Completion) -> dict[str, Any]:
    """A completion as JSON has it."""
    numbers = found._asdict()
    numbers.pop("nll")
    return numbers


def completion_line(done: dict[str, Any]) -> str:
    """Both perplexities with their errors, and what they are of."""
    return (
        f"{done['ppl_tok']:,.1f} ± {done['ppl_tok_stderr']:.1f} by tokens, "
        f"{done['ppl_doc']:,.1f} ± {done['ppl_doc_stderr']:.1f} by documents "
        f"({done['num_tokens']:,} tokens of {done['num_docs']:,} documents; "
        f"{done['skipped_docs']:,} skipped)"
    )


def lines(summary: dict[str, Any]) -> list[str]:
    """The numbers that `print(fit)` does not have."""
    found = []
    if "completion" in summary:
        shown = completion_line(summary["completion"])
        found.append(f"completion perplexity of held-out documents {shown}")
    cv = f", C_V {summary['c_v']:.3f}" if "c_v" in summary else ""
    found.append(
        f"NPMI {summary['npmi']:.3f} on the training documents{cv}, diversity "
        f"{summary['diversity']:.2f}"
    )
    return found


def save(
    workdir: Path, fit: Any, loaded: Any, summary: dict[str, Any], arrays: dict[str, Any]
) -> None:
    """All files of a fit but its figures; `arrays` are what its topics are."""
    files.write_npz(workdir / TOPICS, {**arrays, "vocab": np.array(loaded.corpus.vocab)})
    shares = np.asarray(fit.shares(loaded.train), np.float32)
    files.write_whole(workdir / SHARES, lambda file: np.lib.format.write_array(file, shares))
    files.write_json(workdir / SUMMARY, summary)
    words = word_lists(fit, loaded)
    files.write_json(workdir / WORDS_JSON, words)
    files.write_text(workdir / WORDS_TEXT, words_text(words))
    files.write_text(workdir / KEYS, mallet_keys(fit, words))
    titles = loaded.corpus.parts["train"].titles or [str(doc) for doc in range(len(shares))]
    files.write_text(workdir / MALLET_SHARES, mallet_shares(shares, titles))
    files.write_text(workdir / SHARES_TABLE, shares_table(shares, titles))
    files.write_text(workdir / EXEMPLARS, exemplars(shares, loaded))
    files.write_json(workdir / LDAVIS, ldavis(fit, loaded, shares))


class DocEvidence(NamedTuple):
    """Of some training documents."""

    docs: np.ndarray  # their numbers, [n]
    lengths: np.ndarray  # tokens, [n]
    found: vi.topics.Evidence


def save_evidence(workdir: Path, config: Any, fit: Any, loaded: Any) -> DocEvidence | None:
    """k-hat of the shares of some training documents, all where there are no more than asked for,
    the others drawn by the seed; None where none are asked for.
    """
    size = min(config.fit.evidence_docs, loaded.train.num_docs)
    if not size:
        return None
    key_docs, key_samples = jax.random.split(jax.random.key(config.seed))
    order = np.asarray(jax.random.permutation(key_docs, loaded.train.num_docs))
    docs = np.sort(order[:size])
    some = vi.topics.take(loaded.train, docs)
    found = vi.topics.evidence(key_samples, fit, some, num_samples=NUM_SAMPLES)
    return write_evidence(workdir, DocEvidence(docs, some.lengths, found))


def write_evidence(workdir: Path, made: DocEvidence) -> DocEvidence:
    """The same, once it is in its file."""
    arrays = {"doc": made.docs, "tokens": made.lengths, "readable": made.found.readable}
    files.write_npz(workdir / EVIDENCE, {**arrays, **made.found._asdict()})
    return made


def word_lists(fit: Any, loaded: Any) -> list[dict[str, Any]]:
    """Of each topic its share of all tokens, and its words by probability, by lift (probability
    over that in the corpus) and by FREX, the harmonic mean of a word's ranks by frequency in the
    topic and by exclusivity to it.
    """
    beta = np.asarray(fit.topics_mean, np.float64)
    vocab = loaded.corpus.vocab
    unigram = _unigram(loaded.train)
    lift = beta / np.maximum(unigram, 1e-300)
    exclusive = beta / beta.sum(0)
    frex = 1.0 / (FREX_WEIGHT / _ranks(exclusive) + (1.0 - FREX_WEIGHT) / _ranks(beta))
    mass = np.asarray(fit.weights, np.float64)
    mass = mass / mass.sum()
    # a word's lift and exclusivity mean nothing where the topic hardly has it
    seen = beta * np.asarray(fit.weights, np.float64)[:, None] >= 1.0
    found = []
    for topic in range(len(beta)):
        entry: dict[str, Any] = {"topic": topic, "share": float(mass[topic])}
        for name, score in (("probability", beta), ("lift", lift), ("frex", frex)):
            usable = (
                score[topic]
                if name == "probability"
                else np.where(seen[topic], score[topic], -np.inf)
            )
            order = np.argsort(-usable, kind="stable")[:NUM_WORDS]
            entry[name] = [
                {"word": vocab[word], "value": float(score[topic, word])} for word in order
            ]
        found.append(entry)
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """The empirical distribution function of each row at its own entries, in (0, 1]."""
    order = np.argsort(np.argsort(values, axis=1, kind="stable"), axis=1, kind="stable")
    return (order + 1.0) / values.shape[1]


def _unigram(counts: vi.topics.Counts) -> np.ndarray:
    """The share of each word among all tokens."""
    (_, indices, data) = vi.topics.to_csr(counts)
    totals = np.bincount(indices, weights=data, minlength=counts.num_words)
    return totals / totals.sum()


def words_text(words: list[dict[str, Any]]) -> str:
    """A paragraph a topic, the most frequent topic first."""
    found = []
    for entry in sorted(words, key=lambda entry: -entry["share"]):
        found.append(f"topic {entry['topic']}, {100 * entry['share']:.1f} % of the tokens")
        for name in ("probability", "lift", "frex"):
            shown = " ".join(each["word"] for each in entry[name][:NUM_SHOWN])
            found.append(f"  {name:<12}{shown}")
        found.append("")
    return "\n".join(found)


def mallet_keys(fit: Any, words: list[dict[str, Any]]) -> str:
    """MALLET's topic keys: topic, alpha, words, by tabs."""
    alpha = np.asarray(fit.alpha, float)
    rows = []
    for entry in words:
        shown = " ".join(each["word"] for each in entry["probability"][:NUM_WORDS])
        rows.append(f"{entry['topic']}\t{alpha[entry['topic']]:.5g}\t{shown}\n")
    return "".join(rows)


def mallet_shares(shares: np.ndarray, titles: list[str]) -> str:
    """MALLET's doc topics: number, name and shares of each document, by tabs."""
    rows = []
    for doc, row in enumerate(shares):
        name = " ".join(titles[doc].split())
        rows.append("\t".join([str(doc), name, *(f"{share:.6g}" for share in row)]) + "\n")
    return "".join(rows)


def shares_table(shares: np.ndarray, titles: list[str]) -> str:
    """The same as csv, with a header."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["document", *(f"topic_{topic}" for topic in range(shares.shape[1]))])
    for title, row in zip(titles, shares, strict=True):
        table.writerow([title, *(f"{share:.6g}" for share in row)])
    return out.getvalue()


def exemplars(shares: np.ndarray, loaded: Any) -> str:
    """The documents of each topic that have most of it, by their titles or their numbers."""
    titles = loaded.corpus.parts["train"].titles
    found = []
    for topic in range(shares.shape[1]):
        found.append(f"topic {topic}")
        for doc in np.argsort(-shares[:, topic], kind="stable")[:5]:
            title = titles[doc] if titles else f"document {doc}"
            found.append(f"  {100 * shares[doc, topic]:5.1f} %  {title}")
    return "\n".join(found) + "\n"


def ldavis(fit: Any, loaded: Any, shares: np.ndarray) -> dict[str, Any]:
    """The five arguments of pyLDAvis.prepare (Sievert & Shirley 2014)."""
    (indptr, indices, data) = vi.topics.to_csr(loaded.train)
    docs = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    lengths = np.bincount(docs, weights=data, minlength=len(indptr) - 1)
    totals = np.bincount(indices, weights=data, minlength=fit.num_words)
    return {
        "topic_term_dists": np.asarray(fit.topics_mean, float).round(8).tolist(),
        "doc_topic_dists": np.asarray(shares, float).round(6).tolist(),
        "doc_lengths": lengths.astype(int).tolist(),
        "vocab": list(loaded.corpus.vocab),
        "term_frequency": totals.astype(int).tolist(),
    }
