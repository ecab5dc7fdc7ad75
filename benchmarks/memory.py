"""Memory that does not grow with the work: log p(x) by many importance samples, and training on
data larger than a limit.

    python -m benchmarks.memory                      # about 2 minutes on 2 cores
    python -m benchmarks.memory --write              # and put the tables into benchmarks/README.md
    python -m benchmarks.memory --gigabytes=16       # a data set of that size, written to --folder
    python -m benchmarks.memory --gigabytes=10 --pixels=3072 --limit_megabytes=1024

The last: ten times what the process may hold; Linux, root.

Two tables. Temporary memory of the compiled program that evaluates log p(x), as XLA states it, in
chunks and all at once. And steps per second of one training step with the data on the device, and
streamed from a memory-mapped file, taking turns, with the memory that a process which only streams
holds. With a limit both are once more those of a process that may hold no more than that, the pages
of the file that the system keeps for it among it: its rows come from the disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi
from benchmarks import memory_group, memory_table, report
from benchmarks.contenders_vi import make_loss, make_model
from benchmarks.memory_table import EXAMPLES
from benchmarks.problem import Problem, make_problem
from experiments.build import binarise
from experiments.evals import evidence
from experiments.run.streaming import make_streaming_run
from vi_jax.diagnostics import amortised


def temporary_megabytes(problem: Problem, num_samples: int, chunk: int) -> float:
    """Of the program that evaluates log p(x) of 64 examples with K draws, a chunk at a time."""
    model = make_model(problem)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((EXAMPLES, *problem.x_shape), jnp.float32)

    def evaluate(key: jax.Array, params: Any, x: jax.Array) -> jax.Array:
        return amortised.log_evidence(
            key,
            model,
            params,
            x,
            num_samples=num_samples,
            chunk=chunk,
            batch_size=EXAMPLES,
        )

    compiled = jax.jit(evaluate).lower(jax.random.key(0), params, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def evidence_rows(problem: Problem) -> list[list[str]]:
    """K, in chunks as experiments.evaluate takes them, and all at once."""
    rows = []
    for k in (50, 500, 5_000, 50_000):
        chunked = temporary_megabytes(problem, k, evidence.chunk_for(k))
        whole = temporary_megabytes(problem, k, k)
        report.say(f"K = {k:,}: {chunked:.1f} MB in chunks, {whole:.1f} MB at once")
        rows.append([f"{k:,}", f"{evidence.chunk_for(k)}", f"{chunked:,.0f}", f"{whole:,.0f}"])
    return rows


def write_pixels(folder: Path, gigabytes: float, num_pixels: int) -> Path:
    """A file .npy [N, num_pixels] uint8 of that size, written a piece at a time."""
    path = folder / "pixels.npy"
    num = int(gigabytes * 2**30) // num_pixels
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (num, num_pixels))
    rng = np.random.default_rng(0)
    for start in range(0, num, 2**16):
        part = pixels[start : start + 2**16]
        part[:] = np.frombuffer(rng.bytes(part.size), np.uint8).reshape(part.shape)
    pixels.flush()
    return path


def start(problem: Problem, data: Any, *, streamed: bool) -> Any:
    """steps(n) of the training loop over `data`, on the device or streamed."""
    optimizer = optax.adam(1e-3)
    model = make_model(problem)
    prepare = lambda key, levels: binarise(key, levels, 256)  # noqa: E731
    step = vi.make_step(make_loss(problem, model), optimizer, prepare=prepare, grad_norm_every=10)
    run: Any = (make_streaming_run if streamed else vi.make_run)(
        step, batch_size=problem.batch_size
    )
    state = vi.init_state(jax.random.key(0), model.init, optimizer)
    data = data if streamed else jnp.asarray(data)

    def steps(num_steps: int) -> None:
        nonlocal state
        state, info = run(state, data, num_steps)
        vi.training.check_finite(info)

    return steps


def problem_of(num_pixels: int) -> Problem:
    """The MLP VAE for images of that many pixels."""
    return make_problem("mlp", "")._replace(x_shape=(num_pixels,))


def stream_alone(path: str) -> None:
    """In a process of its own: streams 500 steps, and prints the memory that it holds before and
    after.
    """
    data = np.load(path, mmap_mode="r")
    problem = problem_of(data.shape[1])
    steps = start(problem, data, streamed=True)
    steps(problem.block)
    before = report.process_megabytes("RssAnon")
    steps(5 * problem.block)
    device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20
    after = report.process_megabytes("RssAnon")
    print(
        json.dumps(
            {"before": before, "after": after, "device": device, "data": data.nbytes / 2**20}
        )
    )


def rates_alone(path: str, megabytes: int, num_rounds: int) -> None:
    """In a process of its own that may hold so much: prints the rates of both loops, on the device
    with an eighth of that.
    """
    data = np.load(path, mmap_mode="r")
    print(
        json.dumps(
            stream_rates(problem_of(data.shape[1]), data, num_rounds, megabytes // 8, parts=False)
        )
    )


def limited_rates(path: Path, megabytes: int, num_rounds: int) -> dict[str, Any] | None:
    """The rates of a process that may hold so much, and the most it held; None where the system
    lets us limit none.
    """
    try:
        with memory_group.limited(megabytes) as group:
            command = [sys.executable, "-m", "benchmarks.memory", f"--limited={path}"]
            command += [f"--limit_megabytes={megabytes}", f"--rounds={num_rounds}"]
            done = subprocess.run(
                command,
                cwd=Path(__file__).parents[1],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                preexec_fn=group.enter,
            )
            return {
                "rates": json.loads(done.stdout.splitlines()[-1]),
                "peak": group.peak_megabytes(),
            }
    except OSError as error:
        report.say(
            f"the limit of {megabytes:,} MB is left out: this machine makes no memory cgroup "
            f"({error})."
        )
        return None
    except subprocess.CalledProcessError as error:
        report.say(
            f"the limit of {megabytes:,} MB is left out: the process within it ended with "
            f"{error.returncode}, -9 for want of it."
        )
        return None


def stream_rates(
    problem: Problem,
    data: np.ndarray,
    num_rounds: int,
    megabytes: int = 1024,
    *,
    parts: bool = True,
) -> dict[str, list[float]]:
    """Steps per second of the loop on the device over so much of the data, and streamed over that
    part and over all of it.
    """
    small = data[: min(len(data), megabytes * 2**20 // data.shape[1])]
    loops = {"on the device": start(problem, small, streamed=False)}
    if parts:
        loops["streamed"] = start(problem, small, streamed=True)
    loops["streamed, all of the file"] = start(problem, data, streamed=True)
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for steps in loops.values():
        steps(problem.block)
    for i in range(num_rounds):
        for name, steps in loops.items():
            began = time.perf_counter()
            steps(5 * problem.block)
            rates[name].append(5 * problem.block / (time.perf_counter() - began))
        report.say(
            f"round {i + 1}/{num_rounds}: "
            + ", ".join(f"{name} {r[-1]:.0f}" for name, r in rates.items())
        )
    return rates


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    if flags.alone:
        stream_alone(flags.alone)
        return
    if flags.limited:
        rates_alone(flags.limited, flags.limit_megabytes, flags.rounds)
        return
    problem = problem_of(flags.pixels)
    evidence = evidence_rows(problem_of(784))
    with tempfile.TemporaryDirectory(dir=flags.folder or None) as folder:
        path = write_pixels(Path(folder), flags.gigabytes, problem.x_shape[0])
        command = [sys.executable, "-m", "benchmarks.memory", f"--alone={path}"]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
        )
        held = json.loads(done.stdout.splitlines()[-1])
        report.say(f"alone: {held}")
        limited = None
        if flags.limit_megabytes:
            limited = limited_rates(path, flags.limit_megabytes, flags.rounds)
        rates = stream_rates(problem, np.load(path, mmap_mode="r"), flags.rounds)
    text = memory_table.describe(problem, evidence, held, rates, limited, flags)
    numbers = {
        "device": report.device_name(),
        "evidence": evidence,
        "held": held,
        "rates": rates,
        "limited": limited,
    }
    report.finish("memory", text, flags, numbers)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser("Memory of evaluation and of streaming.")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of the file that is streamed")
    parser.add_argument(
        "--pixels", type=int, default=784, help="of an image; 3072 are 32 x 32 in colour"
    )
    parser.add_argument(
        "--folder",
        default="",
        help="where the file is written; that of temporary files if not given",
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each loop")
    parser.add_argument(
        "--limit_megabytes",
        type=int,
        default=0,
        help="also stream in a process that may hold no more than this",
    )
    parser.add_argument(
        "--limited", help="time both loops over this file; the benchmark calls it within the limit"
    )
    parser.add_argument(
        "--alone", help="stream this file and print the memory held; the benchmark calls it"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
