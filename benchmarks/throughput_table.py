"""The tables of benchmarks.throughput: a row for each contender."""

import statistics
from typing import Any

from benchmarks import report
from benchmarks.contenders import by_name

OURS = "vi_jax"
LIMIT = "matrix products alone"
FLOORS = ("hand-written loop", "hand-written jit loop")


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    """The table's rows of one problem."""
    rates: dict[str, list[float]] = found["rates"]
    floors = [name for name in FLOORS if name in rates]
    floor = max(floors, key=lambda name: statistics.median(rates[name]), default=None)
    rows = []
    for name, own in rates.items():
        process = found["alone"].get(name)
        rows.append(
            [
                f"**{name}**: {by_name(name).how}",
                _three_digits(statistics.median(own)),
                _ratio(own, rates.get(OURS)),
                _ratio(own, rates.get(floor)) + (", the floor" if name == floor else ""),
                _ratio(rates.get(LIMIT), own).split(" ")[0],
                _three_digits(1e3 * statistics.median(found["processor"][name])),
                *_alone(process),
            ]
        )
    return rows


def _alone(process: dict[str, float] | None) -> list[str]:
    if process is None:
        return []
    return [
        f"{process['compiling']:.1f}",
        f"{process['imports']:.1f}",
        f"{process['memory']:,.0f}",
    ]


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(rates: list[float] | None, base: list[float] | None) -> str:
    if rates is None or base is None:
        return ""
    ratios = [a / b for a, b in zip(rates, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def describe(results: dict[str, dict[str, Any]]) -> str:
    """A table for each problem, and what they were measured on and with.

    Args:
      results: of `benchmarks.throughput.measure`, by problem.
    """
    head = [
        "steps/s",
        f"vs {OURS}",
        "vs the floor",
        "times the products'",
        "processor, ms a step",
    ]
    alone = ["compiling, s", "imports, s", "memory, MB"]
    tables = [
        report.markdown_table(
            [found["title"], *head, *(alone if found["alone"] else ())], rows_of(found)
        )
        for found in results.values()
    ]
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    absent = {
        name: reason
        for found in results.values()
        for name, reason in found["not_available"].items()
    }
    lines = [
        f"Float32. {report.device_name()}; {used}.",
        "Medians over rounds; ratios above 1 are faster, with their least and greatest in "
        "brackets; the floor is the faster of the two loops by hand.",
        *[
            f"{found['title']}: {found['source']}; {_num_rounds(found)} rounds; the loss at the "
            f"start is {found['loss_at_start']:.2f} nats for all, within "
            f"{found['loss_stderr']:.2f} of standard error{_load(found)}."
            for found in results.values()
        ],
        *[f"{name}: not available: {reason}." for name, reason in absent.items()],
        *_torch_threads(results),
    ]
    return "\n\n".join([*tables, " ".join(lines)])


def _num_rounds(found: dict[str, Any]) -> int:
    return len(next(iter(found["rates"].values())))


def _load(found: dict[str, Any]) -> str:
    """How busy the machine was before, in words, where the system says so."""
    load = found["load_average"]
    return "" if load is None else f"; the load average before was {load:.1f}"


def _torch_threads(results: dict[str, dict[str, Any]]) -> list[str]:
    if not any(name.startswith("PyTorch") for found in results.values() for name in found["rates"]):
        return []
    import torch

    return [f"PyTorch has {torch.get_num_threads()} threads."]


def versions() -> dict[str, str]:
    """Those of Python and of what the contenders are made of."""
    return report.versions("jax", "jaxlib", "optax", "flax", "numpyro", "torch", "vi_jax")
