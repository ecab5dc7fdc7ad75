"""Seconds from a new process to `import`, to `--help`, and to the first training step, cold and
warm.

    python -m benchmarks.startup                     # about 3 minutes on 2 cores
    python -m benchmarks.startup --write             # and put the table into benchmarks/README.md

Each number is the median of `--repeats` new processes. Cold: the persistent compilation cache is an
empty folder. Warm: the second run with the same folder.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import report

FIRST_STEP = re.compile(r"first (?:step after|[\d,]+ steps? done) ([0-9.]+) s")
ROOT = Path(__file__).parents[1]


class Run(NamedTuple):
    """A process that has ended well."""

    seconds: float  # from its start to its end
    first_step: float | None  # from its start to the line that says the first step is done
    said: float | None  # what that line itself says


def run(arguments: list[str]) -> Run:
    """Runs this Python with `arguments` in the repository's root and times it, reading its output
    as it comes.

    Raises:
      RuntimeError: the process failed; quotes its last lines.
    """
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # a folder from outside would not be cold
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    first_step = None
    said = None
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if first_step is None and (match := FIRST_STEP.search(line)):
            first_step = time.perf_counter() - began
            said = float(match[1])
    if process.wait():
        tail = "".join(lines[-5:]).strip()
        raise RuntimeError(
            f"`python {' '.join(arguments)}` ended with {process.returncode}; its last lines: "
            f"{tail}"
        )
    return Run(time.perf_counter() - began, first_step, said)


def first_steps(flags: argparse.Namespace) -> tuple[Run, Run]:
    """A cold and a warm run of the training command, with one cache folder and a work folder each.

    Raises:
      RuntimeError: the command failed, or never said when its first step was done.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        runs = []
        for name in ("cold", "warm"):
            arguments = [
                "-m",
                "experiments.train",
                f"--config={flags.config}",
                f"--workdir={Path(folder, name)}",
            ]
            arguments += [
                f"--compilation_cache={cache}",
                f"--config.train.num_steps={flags.num_steps}",
                *flags.set,
            ]
            runs.append(run(arguments))
            if runs[-1].first_step is None:
                raise RuntimeError(
                    "experiments.train did not say when its first steps were done; see "
                    "FIRST_STEP here."
                )
        return runs[0], runs[1]


def measure(flags: argparse.Namespace) -> dict[str, list[float]]:
    """Row -> its seconds, one for each repeat; the rows take turns."""
    commands = {
        "`python -c pass`": ["-c", "pass"],
        "`import jax`": ["-c", "import jax"],
        "`import vi_jax`": ["-c", "import vi_jax"],
        "`import vi_jax` and all of it": [
            "-c",
            "import vi_jax as vi; vi.models.vae, vi.losses, vi.training",
        ],
        "`experiments.train --help`": ["-m", "experiments.train", "--help"],
    }
    seconds: dict[str, list[float]] = {}
    for i in range(flags.repeats):
        report.say(f"repeat {i + 1}/{flags.repeats}")
        for name, arguments in commands.items():
            seconds.setdefault(name, []).append(run(arguments).seconds)
        cold, warm = first_steps(flags)
        for kind, ended in (("cold", cold), ("warm", warm)):
            assert ended.first_step is not None
            seconds.setdefault(f"first {flags.num_steps} steps, {kind}", []).append(
                ended.first_step
            )
            seconds.setdefault(f"those, evaluation and figures, {kind}", []).append(ended.seconds)
            report.say(
                f"{kind}: first step after {ended.first_step:.2f} s (it says {ended.said:.1f} s)"
            )
    return seconds


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    seconds = measure(flags)
    rows = [
        [name, f"{statistics.median(s):.2f}", f"{min(s):.2f}..{max(s):.2f}"]
        for name, s in seconds.items()
    ]
    packages = ("jax", "jaxlib", "flax", "numpyro", "vi_jax")
    note = (
        f"Seconds from the start of the process, `--config={flags.config}`. "
        f"{report.used(*packages)}"
    )
    text = (
        f"{report.markdown_table(['', f'median of {flags.repeats}, s', 'range'], rows)}\n\n{note}"
    )
    numbers = {
        "device": report.device_name(),
        "versions": report.versions(*packages),
        "seconds": seconds,
    }
    report.finish("startup", text, flags, numbers)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser("Seconds to import, to --help, and to the first training step.")
    parser.add_argument("--config", default="configs/vae.py", help="of experiments.train")
    parser.add_argument("--num_steps", type=int, default=10, help="of the training run")
    parser.add_argument("--repeats", type=int, default=3, help="new processes for each number")
    parser.add_argument(
        "--set",
        nargs="*",
        default=["--config.optim.learning_rate.warmup_steps=0"],
        help="more of its flags",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
