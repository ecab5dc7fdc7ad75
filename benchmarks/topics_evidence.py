"""log p(words) of single documents under a topic model: bounds beside what is exact, and whether
the shares of documents are as sure as they say.

    python -m benchmarks.topics_evidence --corpus=dblp.npz

CORPUS.npz as of benchmarks.topics. Topics are fitted to its training documents; the first test
documents of 1 to 5 tokens are enumerated, and those of other lengths are simulated, where annealing
forwards and backwards are bounds from below and above.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

MOST_TOKENS = 5
LENGTHS = (5, 20, 80)  # of simulated documents
SIMULATED = 50  # of each length
ANNEALED = ((200, 50), (2000, 50), (200, 2000), (1000, 1600))  # chains, temperatures


def main() -> None:
    """Prints three tables."""
    import jax

    import vi_jax as vi
    from benchmarks.topics import read

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--num_topics", type=int, default=10)
    parser.add_argument("--num_docs", type=int, default=1000)
    parser.add_argument("--num_sweeps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = read(arguments.corpus, ("train", "test"))
    keys = jax.random.split(jax.random.key(arguments.seed), 5)
    fit = vi.topics.fit_lda(
        keys[0],
        corpus["train"],
        num_topics=arguments.num_topics,
        num_starts=1,
        num_sweeps=arguments.num_sweeps,
    )
    test = corpus["test"]
    short = np.flatnonzero((test.lengths > 0) & (test.lengths <= MOST_TOKENS))
    docs = vi.topics.take(test, short[: arguments.num_docs])
    exact = vi.topics.exact(fit, docs)
    found = vi.topics.evidence(keys[1], fit, docs)
    print(f"{docs.num_docs:,} documents of at most {MOST_TOKENS} tokens, K = {fit.num_topics}\n")
    print("| bound | mean distance, nats | within 0.01 nats | worst |\n|---|---|---|---|")
    show("ELBO", found.elbo - exact)
    show("importance samples, 1,000", found.iwae - exact)
    for num_chains, num_temperatures in ANNEALED:
        began = time.process_time()
        annealed = vi.topics.anneal(
            keys[2], fit, docs, num_chains=num_chains, num_temperatures=num_temperatures
        )
        seconds = time.process_time() - began
        name = f"annealed, {num_chains:,} chains of {num_temperatures:,} temperatures"
        show(f"{name}, {seconds:.0f} CPU s", annealed - exact)
    print(f"\n{found.verdict}\n")
    print("| simulated, tokens | from below | from above | gap, nats |\n|---|---|---|---|")
    for length in LENGTHS:
        below, above = vi.topics.bracket(keys[3], fit, np.full(SIMULATED, length))
        gap = np.mean(above - below)
        print(f"| {length} | {below.mean():.3f} | {above.mean():.3f} | {gap:.3f} |", flush=True)
    print(
        "\n| tokens | 50 % intervals hold | 90 % intervals hold | mean error |\n|---|---|---|---|"
    )
    for row in vi.topics.calibration(keys[4], fit):
        held = " | ".join(
            f"{100 * one:.1f} ± {100 * error:.1f} %"
            for one, error in zip(row.coverage, row.stderr, strict=True)
        )
        print(f"| {row.length} | {held} | {row.error:.3f} |", flush=True)


def show(name: str, difference: Any) -> None:
    """A row: estimates less the exact log p."""
    within = np.mean(np.abs(difference) < 0.01)
    worst = difference[np.argmax(np.abs(difference))]
    print(f"| {name} | {difference.mean():+.4f} | {within:.1%} | {worst:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
