"""Steps per second of training VAEs: vi_jax, the same model by hand, NumPyro, Flax's example and
PyTorch, in one run.

    python -m benchmarks.throughput   # about 12 minutes on 2 cores; leave the machine alone
    python -m benchmarks.throughput --write          # and put the table into benchmarks/README.md
    python -m benchmarks.throughput --problems=mlp --rounds=15
    python -m benchmarks.throughput --wide --write   # on a GPU: a wide model in bfloat16

All start from the same weights, and have to agree on the loss there before anything is timed. Then
they take turns, a second each, in an order that rotates from round to round; what is reported is
the median over rounds, of the rate and of the ratio *within* a round, so that a slow minute of the
machine hits everyone, and of the processor time, which other work on the cores disturbs less.
Import, compilation and memory are those of a process each.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report
from benchmarks.contenders import CONTENDERS
from benchmarks.problem import (
    Contender,
    NotAvailable,
    Problem,
    Running,
    Weights,
    make_problem,
    make_weights,
)
from benchmarks.throughput_table import describe, versions

BLOCKS = {"throughput": ("mlp", "iwae"), "convolutions": ("conv", "photos")}  # of README.md
PROBLEMS = tuple(name for names in BLOCKS.values() for name in names)
CHECKS = 20  # draws of the loss at the start
# Contenders that train no convolutions: in a compiled loop on a CPU lax's takes a second a step,
# and outside a loop all of JAX have the same one.
NO_CONVOLUTIONS = (
    "hand-written loop",
    "NumPyro SVI, in a scan",
    "NumPyro SVI, jit loop",
    "Flax example",
)


class Ready(NamedTuple):
    """A contender that has started and been checked."""

    contender: Contender
    running: Running
    turn: int  # steps in a turn
    losses: list[float]  # draws of the loss at the common start; none where nothing is trained


class Alone(NamedTuple):
    """What a process of its own took."""

    imports: float  # seconds to import what the contender needs
    compiling: float  # seconds from there to the first block, less what a block takes
    # MB, the most that the process held, and on an accelerator the most that its device did
    memory: float


def get_ready(
    contender: Contender, problem: Problem, weights: Weights, x: np.ndarray, seconds: float
) -> Ready:
    """Starts a contender, draws its loss at the start, and takes two blocks to see how many make a
    turn.

    Raises:
      NotAvailable: it cannot run here.
    """
    running = contender.start(problem, weights)
    losses = [] if running.loss is None else [running.loss(x) for _ in range(CHECKS)]
    running.steps(problem.block)
    began = time.perf_counter()
    running.steps(problem.block)
    block_seconds = time.perf_counter() - began
    report.say(f"{problem.name}, {contender.name}: {problem.block / block_seconds:.1f} steps/s")
    return Ready(contender, running, max(1, round(seconds / block_seconds)) * problem.block, losses)


def require_agreement(all_ready: list[Ready]) -> tuple[float, float]:
    """The mean loss at the common start and its standard error; raises where a contender is 5
    standard errors off the others.

    Raises:
      RuntimeError: the contenders do not compute the same thing; names the one that is farthest
        off.
    """
    trains = [ready for ready in all_ready if ready.losses]
    means = np.array([np.mean(ready.losses) for ready in trains])
    stderr = np.array([np.std(ready.losses, ddof=1) for ready in trains]) / CHECKS**0.5
    off = np.abs(means - np.median(means)) / np.maximum(stderr, 1e-6 * np.abs(means))
    if off.max() > 5:
        worst = trains[int(off.argmax())].contender.name
        raise RuntimeError(
            f"{worst} has another loss at the same weights: "
            f"{dict(zip([r.contender.name for r in trains], means, strict=True))}"
        )
    return float(means.mean()), float(stderr.max())


class Turns(NamedTuple):
    """By contender, a number for each round."""

    rates: dict[str, list[float]]  # steps per second
    processor: dict[str, list[float]]  # seconds of processor time a step, all threads together


def take_turns(all_ready: list[Ready], num_rounds: int) -> Turns:
    """Every contender in every round."""
    rates: dict[str, list[float]] = {ready.contender.name: [] for ready in all_ready}
    processor: dict[str, list[float]] = {ready.contender.name: [] for ready in all_ready}
    for i in range(num_rounds):
        shift = i % len(all_ready)
        for ready in all_ready[shift:] + all_ready[:shift]:
            name = ready.contender.name
            began = time.perf_counter()
            began_processor = time.process_time()
            ready.running.steps(ready.turn)
            processor[name].append((time.process_time() - began_processor) / ready.turn)
            rates[name].append(ready.turn / (time.perf_counter() - began))
        report.say(
            f"round {i + 1}/{num_rounds}: "
            + ", ".join(f"{name} {r[-1]:.1f}" for name, r in rates.items())
        )
    return Turns(rates, processor)


def alone(contender: Contender, problem: Problem, data_dir: str) -> Alone:
    """The same in a new process.

    Raises:
      RuntimeError: it failed; quotes its last lines.
    """
    arguments = [sys.executable, "-m", "benchmarks.alone", contender.name, problem.name, data_dir]
    done = subprocess.run(
        arguments, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"`{' '.join(arguments)}` failed: {done.stderr[-500:]}")
    found = Alone(**json.loads(done.stdout.splitlines()[-1]))
    report.say(f"{problem.name}, {contender.name} alone: {found}")
    return found


def measure(problem: Problem, flags: argparse.Namespace) -> dict[str, Any]:
    """Everything of one problem, as JSON has it."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    weights = make_weights(problem)
    all_ready = []
    absent = {}
    x = np.float32(problem.pixels[: problem.batch_size] > 127)
    for contender in CONTENDERS:
        if flags.only not in contender.name or (flags.skip and flags.skip in contender.name):
            continue
        if problem.conv and contender.name in NO_CONVOLUTIONS:
            continue
        try:
            all_ready.append(get_ready(contender, problem, weights, x, flags.seconds))
        except NotAvailable as reason:
            absent[contender.name] = str(reason)
            report.say(f"{contender.name}: {reason}")
    loss, stderr = require_agreement(all_ready)
    report.say(
        f"{problem.name}: all have the loss {loss:.2f}, standard error {stderr:.2f}, at the start"
    )
    turns = take_turns(all_ready, flags.rounds)
    processes = {
        ready.contender.name: alone(ready.contender, problem, flags.data_dir)
        for ready in all_ready
        if not flags.no_alone
    }
    return {
        "title": problem.title,
        "source": problem.source,
        "load_average": load,
        "loss_at_start": loss,
        "loss_stderr": stderr,
        **turns._asdict(),
        "alone": {name: found._asdict() for name, found in processes.items()},
        "not_available": absent,
    }


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    # compilation is timed: find no old programs
    jax.config.update("jax_enable_compilation_cache", False)
    jnp.zeros(1).block_until_ready()  # the first contender does not pay for the backend
    if flags.wide:
        from benchmarks import wide

        (result, text) = wide.measure_and_describe(flags.rounds)
        texts = {"wide": text}
    else:
        result = {
            name: measure(make_problem(name, flags.data_dir), flags)
            for name in flags.problems.split(",")
        }
        texts = {
            block: describe({name: result[name] for name in names if name in result})
            for block, names in BLOCKS.items()
            if set(names) & set(result)
        }
    print("\n\n".join(texts.values()))
    if flags.json:
        device = {"device": report.device_name(), "versions": versions()}
        report.write_json(flags.json, {**device, **result})
    for block, text in texts.items():
        if flags.write:
            report.write_block(block, text)


def parse_flags() -> argparse.Namespace:
    """The command line; says what is wrong with it."""
    parser = argparse.ArgumentParser(description="Steps per second of training VAEs.")
    parser.add_argument("--problems", default=",".join(PROBLEMS), help="which of these")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of a turn, about; at least a block"
    )
    parser.add_argument(
        "--data_dir", default="../shared/data/mnist", help="folder with MNIST's IDX files, if any"
    )
    parser.add_argument("--only", default="", help="contenders whose name holds this text")
    parser.add_argument(
        "--skip", default="", help="leave out contenders whose name holds this text"
    )
    parser.add_argument(
        "--no_alone",
        action="store_true",
        help="leave out compilation, imports and memory: a process each",
    )
    parser.add_argument(
        "--wide", action="store_true", help="a wide model in bfloat16 instead, for an accelerator"
    )
    parser.add_argument("--json", help="file for every round's numbers")
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/README.md"
    )
    flags = parser.parse_args()
    if flags.rounds < 1 or flags.seconds <= 0:
        parser.error("--rounds is at least 1, and --seconds above 0")
    if unknown := set(flags.problems.split(",")) - set(PROBLEMS):
        parser.error(f"--problems are {', '.join(PROBLEMS)}; got {', '.join(sorted(unknown))}")
    return flags


if __name__ == "__main__":
    main()
