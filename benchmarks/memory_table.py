"""The tables of benchmarks.memory: importance samples in chunks, and streamed training."""

import argparse
import statistics
from typing import Any

from benchmarks import report
from benchmarks.problem import Problem

EXAMPLES = 64  # of which log p(x) is evaluated at a time


def describe(
    problem: Problem,
    evidence: list[list[str]],
    held: dict[str, float],
    rates: dict[str, list[float]],
    limited: dict[str, Any] | None,
    flags: argparse.Namespace,
) -> str:
    """Both tables, and what they were measured on and with."""
    first = report.markdown_table(
        ["K", "draws at a time", "temporary memory, MB", "all K at once, MB"], evidence
    )
    rows = rate_rows(rates)
    note_of_limit = ""
    if limited:
        rows += rate_rows(limited["rates"], f" *, at most {flags.limit_megabytes:,} MB")
        note_of_limit = (
            f" * A process that may hold {flags.limit_megabytes:,} MB, pages of the file among "
            "it; the file is "
            f"{held['data'] / flags.limit_megabytes:.1f} times that. It held "
            f"{limited['peak']:,.0f} MB at most."
        )
    second = report.markdown_table(["data", "steps/s", "of the rate on the device"], rows)
    device = f", of its device at most {held['device']:,.0f} MB" if held["device"] else ""
    note = (
        f"{problem.title}; log p(x), of the MLP for 784 pixels, for {EXAMPLES} examples at a "
        "time, as XLA states it. The file has "
        f"{held['data']:,.0f} MB; a process that streams it holds {held['before']:,.0f} MB of "
        "its own after the first block and "
        f"{held['after']:,.0f} MB after five more{device}. Medians over {flags.rounds} rounds. "
        f"{report.used('jax', 'jaxlib', 'vi_jax')}"
        f"{note_of_limit}"
    )
    return f"{first}\n\n{second}\n\n{note}"


def rate_rows(rates: dict[str, list[float]], where: str = "") -> list[list[str]]:
    """Medians, and those of the ratios to the loop on the device in the same round."""
    rows = []
    for name, own in rates.items():
        ratios = [a / b for a, b in zip(own, rates["on the device"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        rows.append([name + where, f"{statistics.median(own):.0f}", spread])
    return rows
