"""Topic models beside those of other libraries: held-out perplexity, and the speed of the E-step.

    python -m benchmarks.topics --corpus=20ng_etm.npz --peers=/opt/peers/bin/python

CORPUS.npz has {train, test_h1, test_h2}_{data, indices, indptr} and vocab. Peers are run by the
Python given, which has scikit-learn, gensim, tomotopy and topica (pip install gensim tomotopy
topica scikit-learn), on the same counts, one process each. Every system is scored by its topics'
means and the shares that `vi.topics` finds of the first halves at the system's own alpha, and once
more with alpha rescaled to the mean that is best on the first 1,000 test documents, scored on the
others.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import say

PEERS = {
    "gensim, one pass": ("gensim", {}),
    "gensim, 10 passes": ("gensim", {"passes": 10}),
    "scikit-learn, batch": ("sklearn", {}),
    "tomotopy, 200 sweeps": ("tomotopy", {"sweeps": 200}),
    "tomotopy, 1,000 sweeps": ("tomotopy", {"sweeps": 1000}),
    "topica, 1,000 sweeps": ("topica", {"sweeps": 1000}),
}
ESTEPS = ("estep_sklearn", "estep_gensim")
MEANS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of alpha rescaled
TUNED_ON = 1000  # test documents
NUM_TOPICS = 50
ITERATIONS = 20


class Fitted(NamedTuple):
    """What a system found."""

    topics: np.ndarray  # [K, V]
    alpha: np.ndarray  # [K]
    seconds: float
    cpu: float


SPLITS = ("train", "test_h1", "test_h2")


def read(path: Path, splits: tuple[str, ...] = SPLITS) -> dict[str, Any]:
    """Counts by split, and the arrays of the training split."""
    import vi_jax as vi

    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    num_words = len(arrays["vocab"])
    found: dict[str, Any] = {"num_words": num_words}
    for split in splits:
        parts = [arrays[f"{split}_{part}"] for part in ("indptr", "indices", "data")]
        found[split] = vi.topics.from_csr(*parts, num_words=num_words)
    raw = {name: arrays[name] for name in arrays if name.startswith("train_")}
    return found | {"raw": raw}


def ours(counts: Any, seed: int, **settings: Any) -> Fitted:
    """A fit by `vi.topics.fit_lda`, compilation included."""
    import jax

    import vi_jax as vi

    began = time.perf_counter()
    began_cpu = time.process_time()
    fit = vi.topics.fit_lda(jax.random.key(seed), counts, num_topics=NUM_TOPICS, **settings)
    return Fitted(
        np.asarray(fit.topics_mean),
        np.asarray(fit.alpha),
        time.perf_counter() - began,
        time.process_time() - began_cpu,
    )


def theirs(python: str, corpus: dict[str, Any], name: str, settings: dict[str, Any]) -> Any:
    """What topics_peers.py stored."""
    script = Path(__file__).with_name("topics_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "corpus.npz"
        out = Path(folder) / "out.npz"
        np.savez(source, num_words=corpus["num_words"], **corpus["raw"])
        command = [python, str(script), name, str(source), str(out), json.dumps(settings)]
        subprocess.run(command, check=True)
        with np.load(out) as stored:
            return {key: stored[key] for key in stored.files}


def score(corpus: dict[str, Any], fitted: Fitted) -> tuple[Any, Any]:
    """Completion at the system's own alpha, and at the rescaled one on the documents that did not
    choose it: a reference for systems whose priors are not learned, chosen on test documents.
    """
    import vi_jax as vi

    h1 = corpus["test_h1"]
    h2 = corpus["test_h2"]
    own = vi.topics.score(_shares(h1, fitted, fitted.alpha), fitted.topics, h1, h2)
    first = np.arange(min(TUNED_ON, h1.num_docs // 2))
    rest = np.arange(len(first), h1.num_docs)

    def at(docs: np.ndarray, mean: float) -> Any:
        part = vi.topics.take(h1, docs)
        alpha = fitted.alpha / fitted.alpha.mean() * mean
        shares = _shares(part, fitted, alpha)
        return vi.topics.score(shares, fitted.topics, part, vi.topics.take(h2, docs))

    best = min(MEANS, key=lambda mean: at(first, mean).ppl_tok)
    return own, at(rest, best)


def _shares(counts: Any, fitted: Fitted, alpha: np.ndarray) -> np.ndarray:
    """By the collapsed fixed point at the topics' means, the same for all systems."""
    from vi_jax.topics.result import shares_of

    return shares_of(counts, fitted.topics, alpha)


def estep(counts: Any) -> dict[str, float]:
    """Work and least seconds of an E-step of variational Bayes, float32."""
    import jax
    import jax.numpy as jnp

    from benchmarks.topics_peers import best_time
    from vi_jax.topics import blocks, local

    made = jax.tree.map(jnp.asarray, blocks.make_blocks(counts, num_topics=NUM_TOPICS))
    rng = np.random.default_rng(0)
    lam = jnp.asarray(rng.gamma(100, 0.01, (counts.num_words, NUM_TOPICS)), jnp.float32)
    alpha = jnp.full(NUM_TOPICS, 1 / NUM_TOPICS)

    @jax.jit
    def run(lam: Any) -> Any:
        total = jnp.sum(lam, 0)

        def one(block: Any) -> Any:
            b, _ = local.scaled_topics(local.VB, lam.at[block.words].get(mode="clip"), total)
            start = alpha + block.lengths[:, None] / NUM_TOPICS
            return local.fixed_point(local.VB, block, b, alpha, start, num_iterations=ITERATIONS)[0]

        return jax.lax.map(one, made)

    jax.block_until_ready(run(lam))
    wall, cpu = best_time(lambda: jax.block_until_ready(run(lam)), repeats=5)
    return {"work": counts.num_cells * NUM_TOPICS * ITERATIONS, "seconds": wall, "cpu": cpu}


def memory_bandwidth() -> float:
    """GB/s that one core reads from memory, far more than the caches hold."""
    from benchmarks.topics_peers import best_time

    numbers = np.ones(64_000_000, np.float32)
    seconds, _ = best_time(lambda: np.dot(numbers, numbers), repeats=5)
    return numbers.nbytes / seconds / 1e9


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--peers", help="a Python that has the other libraries")
    parser.add_argument("--only", default="", help="peers whose name contains this")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = read(arguments.corpus)
    rates = {"vi_jax": estep(corpus["train"])}
    if arguments.peers:
        for name in ESTEPS:
            rates[name.removeprefix("estep_")] = theirs(arguments.peers, corpus, name, {})
    most = memory_bandwidth()
    print("| E-step | 1e9 cells x topics / CPU s | / s | share of memory bandwidth |")
    print("|---|---|---|---|")
    for name, row in rates.items():
        work = row["work"] / 1e9
        # an iteration reads the topics at a document's words twice, float32
        share = 8.0 * work / row["seconds"] / most
        print(
            f"| {name} | {work / row['cpu']:.2f} | {work / row['seconds']:.2f} | {share:.0%} |",
            flush=True,
        )
    print("| system | own alpha | rescaled alpha | CPU s |\n|---|---|---|---|")
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        say(f"vi_jax, seed {seed}")
        show(f"vi_jax, seed {seed}", corpus, ours(corpus["train"], seed))
    for name, (peer, settings) in PEERS.items():
        if not arguments.peers or arguments.only not in name:
            continue
        say(name)
        found = theirs(arguments.peers, corpus, peer, {"seed": 0, **settings})
        show(name, corpus, Fitted(found["topics"], found["alpha"], found["seconds"], found["cpu"]))


def show(name: str, corpus: dict[str, Any], fitted: Fitted) -> None:
    """A row: perplexity by tokens / by documents."""
    own, tuned = score(corpus, fitted)
    print(
        f"| {name} | {own.ppl_tok:,.0f} / {own.ppl_doc:,.0f} | {tuned.ppl_tok:,.0f} / "
        f"{tuned.ppl_doc:,.0f} | {float(fitted.cpu):.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
