"""Coherence beside diversity of topics of short texts: LDA and ProdLDA, beside published numbers.

    python -m benchmarks.topics_neural --corpus=m10.npz     # --corpus=dblp.npz --topics=4

CORPUS.npz has train_{data, indices, indptr} and vocab. NPMI is that of the ten most probable words
over pairs in training documents; a pair that never meets counts -1, and with the 1e-12 that gensim
adds to a joint probability, as in the published numbers, about -0.6. Those are of S2WTM (Adhya &
Sanyal 2025), medians of five runs, over all documents and not the training ones alone.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import say

PUBLISHED = {
    "m10": {"LDA": -0.047, "ProdLDA": 0.027, "S2WTM": 0.101},
    "dblp": {"LDA": 0.015, "ProdLDA": -0.065, "S2WTM": 0.133},
}
EPSILON = 1e-12  # of gensim
NUM_WORDS = 10
# by NPMI on the training documents of m10, seed 100
BATCH = 200
STEPS = 1_500
RATE = 0.02
KL_WEIGHT = 0.4  # at the end of a rise over the first half: at 1, short texts keep no topics
SETTINGS = {"hidden": 64, "alpha": 0.1}


def read(path: Path) -> Any:
    """The training documents."""
    import vi_jax as vi

    with np.load(path) as stored:
        pieces = [stored[f"train_{part}"] for part in ("indptr", "indices", "data")]
        return vi.topics.from_csr(*pieces, num_words=len(stored["vocab"]))


def lda(counts: Any, seed: int, num_topics: int) -> Any:
    """Topics by `fit_lda` at its defaults, the best of four starts by its own bound."""
    import jax

    import vi_jax as vi

    fit = vi.topics.fit_lda(jax.random.key(seed), counts, num_topics=num_topics, num_starts=4)
    return fit.topics_mean


def prodlda(counts: Any, seed: int, num_topics: int) -> Any:
    """Topics of a trained ProdLDA."""
    import jax
    import jax.numpy as jnp
    import optax

    import vi_jax as vi

    sizes = {"num_latents": num_topics, "background": counts.totals, **SETTINGS}
    model = vi.models.documents.prodlda(counts.num_words, **sizes)
    weight = vi.losses.schedules.linear_warmup(STEPS // 2, final=KL_WEIGHT)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    step = vi.make_step(vi.losses.negative_elbo(model, beta=weight), optimizer)
    state = vi.init_state(jax.random.key(seed), model.init, optimizer)
    rows = jax.tree.map(jnp.asarray, vi.topics.as_rows(counts))
    state, _ = vi.make_run(step, batch_size=BATCH)(state, rows, STEPS)
    return vi.models.documents.topics(model, state.params, num_topics)


def smoothed_npmi(topics: Any, counts: Any) -> float:
    """NPMI with gensim's epsilon, the mean over topics."""
    import vi_jax as vi

    top = np.asarray(vi.topics.top_words(topics, NUM_WORDS))
    indptr, indices, _ = vi.topics.to_csr(counts)
    docs = np.repeat(np.arange(counts.num_docs), np.diff(indptr))
    occurs = np.zeros((counts.num_docs, counts.num_words), np.float32)
    occurs[docs, indices] = 1.0
    pairs = np.triu_indices(NUM_WORDS, 1)
    found = []
    for words in top:
        together = occurs[:, words].T @ occurs[:, words] / counts.num_docs
        single = np.diag(together)
        joint = together + EPSILON
        values = np.log(joint / np.outer(single, single)) / -np.log(joint)
        found.append(values[pairs].mean())
    return float(np.mean(found))


def main() -> None:
    """Prints a row for each method."""
    import vi_jax as vi

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--topics", type=int, default=10, help="K; the number of labels")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--only", default="", help="LDA or ProdLDA")
    arguments = parser.parse_args()
    counts = read(arguments.corpus)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    print("| method | NPMI by seed | median | with gensim's epsilon | diversity | CPU s a seed |")
    print("|---|---|---|---|---|---|")
    for name, fit in (("LDA", lda), ("ProdLDA", prodlda)):
        if arguments.only not in ("", name):
            continue
        began = time.process_time()
        rows = []
        for seed in seeds:
            say(f"{name}, seed {seed}")
            topics = np.asarray(fit(counts, seed, arguments.topics))
            own = float(vi.topics.npmi(topics, counts, num_words=NUM_WORDS).mean())
            rows.append((own, smoothed_npmi(topics, counts), vi.topics.diversity(topics)))
            say(f"{rows[-1]}")
        seconds = (time.process_time() - began) / len(seeds)
        own, smoothed, diverse = np.array(rows).T
        shown = ", ".join(f"{value:.3f}" for value in own)
        print(
            f"| {name} | {shown} | {np.median(own):.3f} | {np.median(smoothed):.3f} | "
            f"{np.median(diverse):.2f} | {seconds:.0f} |",
            flush=True,
        )
    for name, value in PUBLISHED.get(arguments.corpus.stem, {}).items():
        print(f"| {name}, published | | | {value:.3f} | | |")


if __name__ == "__main__":
    main()
