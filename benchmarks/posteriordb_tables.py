"""The tables of benchmarks.posteriordb: a line for each method, and for each posterior."""

import statistics

import numpy as np

from benchmarks import report
from benchmarks.posteriordb_rows import Row


def summary(rows: list[Row]) -> str:
    """A line for each method."""
    head = (
        "method",
        "posteriors",
        "mean error <= 0.1 SD",
        "SD error <= 10 %",
        "median mean error",
        "median SD error",
        "the guide's own SD error",
        "evaluations, median",
        "seconds, median",
        "of which compiling",
        "called reliable, mean error > 0.3 SD",
    )
    methods = dict.fromkeys(row.method for row in rows)
    lines = [_method(name, [row for row in rows if row.method == name]) for name in methods]
    return report.markdown_table(head, lines)


def _method(name: str, rows: list[Row]) -> tuple[str, ...]:
    done = [row for row in rows if row.word != "failed"]
    called = [row for row in done if row.word in ("reliable", "corrected only")]
    wrong = sum(row.mean_error > 0.3 for row in called)

    def median(field: str) -> float:
        return statistics.median(getattr(row, field) for row in done) if done else np.nan

    spent = median("evaluations")
    compiling = median("compile_seconds")
    return (
        f"**{name}**",
        f"{len(done)} of {len(rows)}",
        str(sum(row.mean_error <= 0.1 for row in done)),
        str(sum(row.sd_error <= 0.1 for row in done)),
        f"{median('mean_error'):.3f}",
        f"{median('sd_error'):.3f}",
        f"{median('guide_sd_error'):.3f}",
        f"{spent:,.0f}" if spent > 0 else "not reported",
        f"{median('seconds'):.1f}",
        "-" if np.isnan(compiling) else f"{compiling:.1f}",
        f"{wrong} of {len(called)}" if called else "-",
    )


def each(rows: list[Row]) -> report.LongTable:
    """A line for each posterior, of the default."""
    head = (
        "posterior",
        "mean error, SD",
        "SD error",
        "guide's mean error",
        "guide's SD error",
        "k-hat",
        "evaluations",
        "s",
        "verdict",
        "NumPyro AutoMultivariateNormal in the same time, mean error",
    )
    lines = []
    for row in rows:
        if row.method != "default":
            continue
        peer = [
            r
            for r in rows
            if r.posterior == row.posterior and r.method == "NumPyro AutoMultivariateNormal"
        ]
        if not peer:
            other = "-"
        elif peer[0].word == "slower":
            other = f"{peer[0].mean_error:.2f}"
        else:
            other = f"reached in {peer[0].seconds:.1f} s"
        lines.append(
            (
                row.posterior,
                f"{row.mean_error:.3f}",
                f"{row.sd_error:.3f}",
                f"{row.guide_mean_error:.3f}",
                f"{row.guide_sd_error:.3f}",
                f"{row.k_hat:.2f}",
                f"{row.evaluations:,}",
                f"{row.seconds:.1f}",
                row.word,
                other,
            )
        )
    return report.LongTable(head, lines)
