"""Stochastic variational inference over many synthetic documents with known topics, in one pass.

    python -m benchmarks.topics_stream                      # 1,000,000 documents of 100 words
    python -m benchmarks.topics_stream --num_docs=20000     # a try

Documents are made batch by batch and never held. Prints how far the topics are from the true ones,
the time, and the largest memory of the process.
"""

import argparse
import resource
import time
from typing import Any

import numpy as np

NUM_WORDS = 5_000
LENGTH = 100
SHARES = 0.1  # of the Dirichlet of documents
TOPICS = 0.02  # of that of topics


def batch(topics: np.ndarray, seed: int, step: int, size: int) -> Any:
    """Documents of one step."""
    import vi_jax as vi

    rng = np.random.default_rng((seed, step))
    num_topics, num_words = topics.shape
    shares = rng.dirichlet(np.full(num_topics, SHARES), size)
    by_topic = np.stack([rng.multinomial(LENGTH, row) for row in shares])  # [D, K]
    docs = np.repeat(np.arange(size), by_topic.sum(1))
    assigned = np.repeat(np.tile(np.arange(num_topics), size), by_topic.ravel())
    words = np.empty(len(assigned), np.int64)
    order = np.argsort(assigned, kind="stable")
    bounds = np.searchsorted(assigned[order], np.arange(num_topics + 1))
    for topic in range(num_topics):
        part = order[bounds[topic] : bounds[topic + 1]]
        words[part] = rng.choice(num_words, len(part), p=topics[topic])
    cells, data = np.unique(docs * num_words + words, return_counts=True)
    sizes = np.bincount(cells // num_words, minlength=size)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return vi.topics.from_csr(indptr, cells % num_words, data, num_words=num_words)


def main() -> None:
    """Fits and prints."""
    import jax

    import vi_jax as vi

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_docs", type=int, default=1_000_000)
    parser.add_argument("--num_topics", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=4_096)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    topics = rng.dirichlet(np.full(NUM_WORDS, TOPICS), arguments.num_topics)
    num_steps = -(-arguments.num_docs // arguments.batch_size)
    began = time.perf_counter()
    making = [0.0]

    def batch_of(step: int) -> Any:
        start = time.perf_counter()
        made = batch(topics, arguments.seed, step, arguments.batch_size)
        making[0] += time.perf_counter() - start
        return made

    def show(progress: Any) -> None:
        if progress.step % 20 == 0:
            print(f"step {progress.step} of {num_steps}, ELBO {progress.elbo:.4f}", flush=True)

    fit = vi.topics.fit_stream(
        jax.random.key(arguments.seed),
        batch_of,
        num_steps=num_steps,
        num_topics=arguments.num_topics,
        num_docs=arguments.num_docs,
        eta=0.1,
        num_iterations=30,
        callback=show,
    )
    distance = vi.topics.match(topics, fit.topics_mean).distance
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{arguments.num_docs:,} documents: Hellinger distance of topics, median "
        f"{np.median(distance):.3f}, {np.mean(distance < 0.1):.0%} below 0.1; {seconds:.0f} s, of "
        f"which {making[0]:.0f} s made the documents; {memory:.2f} GB at most"
    )


if __name__ == "__main__":
    main()
