"""Steps per second of training one VAE: vi_jax, the same model by hand, NumPyro and PyTorch, in one process.

    python -m benchmarks.train_step                  # about 6 minutes on 2 cores; leave the machine alone meanwhile
    python -m benchmarks.train_step --write          # and put the table into benchmarks/README.md

The contenders take turns, a second or two each, in an order that rotates from round to round; what is reported is the
median over rounds, of the rate and of the ratio *within* a round, so that a slow minute of the machine hits everyone.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import contenders_jax, contenders_numpyro, contenders_torch, report
from benchmarks.problem import Contender, NotAvailable, Problem, make_problem

CONTENDERS = (
    contenders_jax.VI_JAX,
    contenders_jax.HAND_LOOP,
    contenders_jax.HAND_JIT,
    contenders_numpyro.NUMPYRO_SCAN,
    contenders_numpyro.NUMPYRO_JIT,
    contenders_torch.TORCH_EAGER,
    contenders_torch.TORCH_COMPILED,
    contenders_jax.PRODUCTS,
)
OURS, FLOOR = contenders_jax.VI_JAX.name, contenders_jax.HAND_LOOP.name
SECONDS_PER_TURN = 1.5


class Ready(NamedTuple):
    """A contender that has started and been checked."""

    contender: Contender
    steps: Callable[[int], float]
    startup: float  # seconds from nothing to the first step: init and compilation, imports apart
    elbo: float  # nats per example, over the last block of the first `check_steps` steps
    turn: int  # steps in a turn


def get_ready(contender: Contender, problem: Problem, check_steps: int, turn: int | None) -> Ready:
    """Starts a contender, times its first block, and trains it for `check_steps` steps.

    Raises:
      NotAvailable: it cannot run here.
    """
    began = time.perf_counter()
    steps = contender.start(problem)
    steps(problem.block)
    first = time.perf_counter() - began
    if check_steps > 2 * problem.block:
        steps(check_steps - 2 * problem.block)
    began = time.perf_counter()
    elbo = steps(problem.block)
    block_seconds = time.perf_counter() - began
    turn = turn or max(1, round(SECONDS_PER_TURN / block_seconds)) * problem.block
    speed = problem.block / block_seconds
    report.say(f"{contender.name}: {first:.1f} s to the first block, {speed:.0f} steps/s, ELBO {elbo:.2f}")
    return Ready(contender, steps, max(first - block_seconds, 0.0), elbo, turn)


def rate(ready: Ready) -> float:
    """Steps per second over one turn."""
    began = time.perf_counter()
    ready.steps(ready.turn)
    return ready.turn / (time.perf_counter() - began)


def take_turns(all_ready: list[Ready], num_rounds: int) -> dict[str, list[float]]:
    """Steps per second of every contender in every round."""
    rates: dict[str, list[float]] = {ready.contender.name: [] for ready in all_ready}
    for i in range(num_rounds):
        shift = i % len(all_ready)
        for ready in all_ready[shift:] + all_ready[:shift]:
            rates[ready.contender.name].append(rate(ready))
        report.say(f"round {i + 1}/{num_rounds}: " + ", ".join(f"{name} {r[-1]:.0f}" for name, r in rates.items()))
    return rates


def row(ready: Ready, rates: dict[str, list[float]]) -> list[str]:
    """One line of the table; ratios above 1 are faster than the column's contender."""
    name = ready.contender.name
    trains = ready.elbo == ready.elbo  # nan says that it does not
    return [
        f"**{name}**: {ready.contender.how}",
        f"{statistics.median(rates[name]):.0f}",
        _ratio(rates[name], rates.get(OURS)),
        _ratio(rates[name], rates.get(FLOOR)),
        f"{ready.startup:.1f}",
        f"{ready.elbo:.1f}" if trains else "trains nothing",
    ]


def _ratio(rates: list[float], base: list[float] | None) -> str:
    if base is None:
        return ""
    ratios = [a / b for a, b in zip(rates, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    jax.config.update("jax_enable_compilation_cache", False)  # start-up is timed: find no old programs
    problem, source = make_problem(flags.model, flags.batch, flags.block, flags.data_dir)
    jnp.zeros(1).block_until_ready()  # the first contender does not pay for the backend
    all_ready, absent = [], {}
    for contender in CONTENDERS:
        if flags.only not in contender.name:
            continue
        try:
            all_ready.append(get_ready(contender, problem, flags.check_steps, flags.steps))
        except NotAvailable as reason:
            absent[contender.name] = str(reason)
            report.say(f"{contender.name}: {reason}")
    rates = take_turns(all_ready, flags.rounds)
    text = describe(flags, problem, source, all_ready, rates, absent)
    print(text)
    if flags.json:
        report.write_json(flags.json, as_json(flags, source, all_ready, rates, absent))
    if flags.write:
        report.write_block("train_step", text)


def describe(
    flags: argparse.Namespace,
    problem: Problem,
    source: str,
    all_ready: list[Ready],
    rates: dict[str, list[float]],
    absent: dict[str, str],
) -> str:
    """The table, and what it was measured on and with."""
    elbo = f"ELBO after {flags.check_steps:,} steps, nats"
    head = ["", "steps/s", f"vs {OURS}", f"vs {FLOOR}", "start-up, s", elbo]
    table = report.markdown_table(head, [row(ready, rates) for ready in all_ready])
    used = ", ".join(f"{name} {version}" for name, version in _versions().items())
    lines = [
        f"VAE {flags.model}, batch {problem.batch_size}, float32, on {source}. {report.device_name()}; {used}.",
        f"Medians over {flags.rounds} rounds; ratios above 1 are faster, with their least and greatest in brackets.",
        "Start-up is init and compilation up to the first step, imports apart.",
        f"Loops and logs in blocks of {problem.block} steps.",
        *[f"{name}: not available: {reason}." for name, reason in absent.items()],
        *_torch_threads(all_ready),
    ]
    return "\n\n".join([table, " ".join(lines)])


def _torch_threads(all_ready: list[Ready]) -> list[str]:
    if not any(ready.contender.name.startswith("PyTorch") for ready in all_ready):
        return []
    import torch

    return [f"PyTorch has {torch.get_num_threads()} threads."]


def _versions() -> dict[str, str]:
    return report.versions("jax", "jaxlib", "optax", "flax", "numpyro", "torch", "vi_jax")


def as_json(
    flags: argparse.Namespace,
    source: str,
    all_ready: list[Ready],
    rates: dict[str, list[float]],
    absent: dict[str, str],
) -> dict[str, Any]:
    """Everything that was measured, every round of it."""
    return {
        "model": flags.model,
        "batch": flags.batch,
        "block": flags.block,
        "data": source,
        "device": report.device_name(),
        "versions": _versions(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "contenders": {
            ready.contender.name: {
                "steps_per_second": rates[ready.contender.name],
                "steps_per_turn": ready.turn,
                "startup_seconds": ready.startup,
                "elbo": ready.elbo if ready.elbo == ready.elbo else None,
            }
            for ready in all_ready
        },
        "check_steps": flags.check_steps,
        "not_available": absent,
    }


def parse_flags() -> argparse.Namespace:
    """The command line; says what is wrong with it."""
    parser = argparse.ArgumentParser(description="Steps per second of training one VAE.")
    parser.add_argument("--model", default="784-500-20", help="pixels-hidden-latents")
    parser.add_argument("--batch", type=int, default=128, help="examples a step")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    parser.add_argument("--steps", type=int, help=f"steps in a turn; as many as fit {SECONDS_PER_TURN} s if not given")
    parser.add_argument("--block", type=int, default=100, help="steps between two looks at the metrics")
    parser.add_argument("--check_steps", type=int, default=1000, help="steps after which the ELBOs are compared")
    parser.add_argument("--data_dir", default="../shared/data/mnist", help="folder with MNIST's IDX files, if any")
    parser.add_argument("--only", default="", help="contenders whose name holds this text")
    parser.add_argument("--json", help="file for every round's numbers")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    flags = parser.parse_args()
    if min(flags.batch, flags.rounds, flags.block) < 1:
        parser.error("--batch, --rounds and --block are at least 1")
    for name in ("steps", "check_steps"):
        value = getattr(flags, name)
        if value is not None and (value < flags.block or value % flags.block):
            parser.error(f"--{name} is a multiple of --block ({flags.block}); got {value}")
    return flags


if __name__ == "__main__":
    main()
