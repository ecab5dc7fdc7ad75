"""The Kalman smoother with its small matrices in plain arithmetic, against BLAS and LAPACK.

python -m benchmarks.smoother            # some two minutes on one core
python -m benchmarks.smoother --write    # and put the table into docs/speed.md

One pass over 130 trials of 100 steps, float32, at the level of XLA that the commands take: seconds
of the processor to compile, and the least of five runs, the two sides in one process.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from benchmarks import report
from benchmarks.papers_page import PAGE
from experiments.startup import LEVEL
from vi_jax import chains
from vi_jax.chains import small

NUM_TRIALS = 130
NUM_STEPS = 100
SIZES = (4, 6, 8, 12, 16)
NUM_RUNS = 5
HEAD = ("latents", "compile, LAPACK and plain (s)", "run, LAPACK and plain (ms)", "times as fast")


def measure(size: int) -> tuple[float, float]:
    """Seconds to compile, and of a run."""
    key_h, key_root = jax.random.split(jax.random.key(0))
    h = jax.random.normal(key_h, (NUM_TRIALS, NUM_STEPS, size))
    root = 0.3 * jax.random.normal(key_root, (NUM_TRIALS, NUM_STEPS, size, size))
    sites = chains.Sites(h, root @ jnp.swapaxes(root, -1, -2))
    identity = jnp.eye(size)
    chain = chains.Chain(jnp.zeros(size), identity, 0.97 * identity, 0.05 * identity)
    smooth = jax.jit(
        jax.vmap(lambda sites: chains.smooth(chain, sites)), compiler_options={LEVEL: 2}
    )
    began = time.process_time()
    program = smooth.lower(sites).compile()
    compiled = time.process_time() - began
    runs = []
    for _ in range(NUM_RUNS):
        began = time.process_time()
        jax.block_until_ready(program(sites))
        runs.append(time.process_time() - began)
    return compiled, min(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/speed.md")
    asked = parser.parse_args()
    most = small.MAX_SIZE
    rows = []
    for size in SIZES:
        small.MAX_SIZE = 0
        lapack = measure(size)
        small.MAX_SIZE = most
        plain = measure(size)
        runs = f"{1e3 * lapack[1]:.0f}, {1e3 * plain[1]:.0f}"
        compiled = f"{lapack[0]:.1f}, {plain[0]:.1f}"
        rows.append((f"{size}", compiled, runs, f"{lapack[1] / plain[1]:.1f}"))
        report.say(" | ".join(rows[-1]))
    if asked.write:
        text = report.markdown_table(HEAD, rows) + f"\n\n{report.used('jax')}"
        report.write_block("smoother", text, PAGE.with_name("speed.md"))


if __name__ == "__main__":
    main()
