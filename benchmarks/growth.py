"""Seconds of a training step against K, batch, latents and examples, with the exponents that the
upper end is fitted by.

    python -m benchmarks.growth                      # about 4 minutes on 2 cores
    python -m benchmarks.growth --write              # and put the table into benchmarks/README.md
    python -m benchmarks.growth --folder=runs/growth # and a figure, growth.png, into that folder

seconds = a size^b, b by least squares in logarithms over the upper half of each range: 1 is linear,
0 is no growth. All sizes take turns; a round's slow minute hits every size. The model is that of
`benchmarks.throughput` but for the size that varies.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from benchmarks import report
from benchmarks.contenders_vi import start_vi_jax
from benchmarks.problem import Problem, make_problem, make_weights

RANGES = {
    "K": (2, 5, 10, 20, 50, 100, 200),
    "batch": (8, 16, 32, 64, 128, 256, 512, 1024),
    "latents": (2, 8, 32, 128, 512, 2048),
    "examples": (1_000, 3_000, 10_000, 30_000, 100_000, 300_000),
}
WHAT = {
    "K": "draws of z, IWAE, batch 20",
    "batch": "examples a step, ELBO",
    "latents": "D, ELBO, batch 128",
    "examples": "N in the data set, ELBO, batch 128",
}


def problem_of(what: str, size: int, base: Problem) -> Problem:
    """The problem in which that one is of that size."""
    if what == "K":  # from 2 on: at 1 the loss is the ELBO with its KL in closed form
        return base._replace(num_samples=size, batch_size=20)
    if what == "batch":
        return base._replace(batch_size=size)
    if what == "latents":
        return base._replace(num_latents=size)
    return base._replace(pixels=np.resize(base.pixels, (size, *base.x_shape)))


def measure(what: str, base: Problem, num_rounds: int, seconds: float) -> dict[int, list[float]]:
    """Seconds of a step at each size, in each round."""
    loops: dict[int, tuple[Callable[[int], float], int]] = {}
    for size in RANGES[what]:
        problem = problem_of(what, size, base)._replace(block=5)
        steps = start_vi_jax(problem, make_weights(problem)).steps
        steps(5)
        began = time.perf_counter()
        steps(5)
        loops[size] = steps, max(1, round(seconds / (time.perf_counter() - began))) * 5
    found: dict[int, list[float]] = {size: [] for size in loops}
    for _ in range(num_rounds):
        for size, (steps, number) in loops.items():
            began = time.perf_counter()
            steps(number)
            found[size].append((time.perf_counter() - began) / number)
    report.say(
        f"{what}: "
        + ", ".join(f"{size:,} {1e3 * statistics.median(s):.2f} ms" for size, s in found.items())
    )
    return found


def exponent(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """b of seconds = a size^b by least squares in logarithms over the upper half of the sizes, and
    its standard error.
    """
    half = len(sizes) // 2
    x = np.log(sizes[half:])
    y = np.log(seconds[half:])
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    residual = y - y.mean() - slope * x
    return slope, float(np.sqrt(residual @ residual / max(len(x) - 2, 1) / (x @ x)))


def draw(results: dict[str, dict[int, list[float]]], folder: Path) -> Path:
    """One panel for each, in logarithms, with the fitted slope."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(results), figsize=(3.2 * len(results), 3), layout="constrained"
    )
    for ax, (what, found) in zip(np.atleast_1d(axes), results.items(), strict=True):
        sizes = list(found)
        middle = [statistics.median(s) for s in found.values()]
        slope, _ = exponent(sizes, middle)
        upper = np.array(sizes[len(sizes) // 2 :], float)
        anchor = np.exp(np.mean(np.log(middle[len(sizes) // 2 :])) - slope * np.mean(np.log(upper)))
        ax.loglog(sizes, [1e3 * s for s in middle], "o", color="black", markersize=4)
        ax.loglog(
            upper, 1e3 * anchor * upper**slope, color="tab:red", label=f"exponent {slope:.2f}"
        )
        ax.set(xlabel=WHAT[what], ylabel="ms a step" if ax is np.atleast_1d(axes)[0] else "")
        low, high = ax.get_ylim()
        if high < 10 * low:  # a decade at least: what does not grow is to look so
            ax.set_ylim((low * high / 10) ** 0.5, (low * high * 10) ** 0.5)
        ax.legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "growth.png", dpi=150)
    plt.close(figure)
    return folder / "growth.png"


def describe(results: dict[str, dict[int, list[float]]], base: Problem, num_rounds: int) -> str:
    """The table, and what it was measured on and with."""
    rows = []
    for what, found in results.items():
        sizes = list(found)
        middle = [statistics.median(s) for s in found.values()]
        slope, stderr = exponent(sizes, middle)
        upper = sizes[len(sizes) // 2 :]
        times = ", ".join(f"{size:,}: {1e3 * s:.3g}" for size, s in zip(sizes, middle, strict=True))
        rows.append(
            [
                f"{what}, {WHAT[what]}",
                times,
                f"{slope:.2f} ± {stderr:.2f}",
                f"{upper[0]:,} to {upper[-1]:,}",
            ]
        )
    head = ["what grows", "size: ms a step", "exponent", "fitted on"]
    note = (
        f"But for what grows: {base.title}. Medians over {num_rounds} rounds. "
        f"{report.used('jax', 'jaxlib', 'vi_jax')}"
    )
    return f"{report.markdown_table(head, rows)}\n\n{note}"


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    jnp.zeros(1).block_until_ready()
    base = make_problem("mlp", flags.data_dir)
    results: dict[str, dict[int, list[float]]] = {
        what: measure(what, base, flags.rounds, flags.seconds) for what in RANGES
    }
    text = describe(results, base, flags.rounds)
    if flags.folder:
        report.say(f"wrote {draw(results, Path(flags.folder))}")
    numbers: dict[str, Any] = {
        what: {str(size): s for size, s in found.items()} for what, found in results.items()
    }
    numbers |= {"device": report.device_name(), "vi_jax": vi.__version__}
    report.finish("growth", text, flags, numbers)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser("How the time of a training step grows.")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each size")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of a turn, about; at least five steps"
    )
    parser.add_argument(
        "--data_dir", default="../shared/data/mnist", help="folder with MNIST's IDX files, if any"
    )
    parser.add_argument("--folder", help="run folder for the figure")
    return parser.parse_args()


if __name__ == "__main__":
    main()
