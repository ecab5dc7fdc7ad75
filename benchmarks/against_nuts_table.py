"""The tables of benchmarks.against_nuts: the numbers aimed at, and a line for each posterior."""

import statistics
from typing import NamedTuple

from benchmarks import report

MAX_ERROR = 0.1  # reference standard deviations, above which a mean is wrong


class Row(NamedTuple):
    """Both on one posterior."""

    posterior: str
    seconds: float  # of vi.fit, by the clock
    nuts_seconds: float
    processor: float  # seconds of all threads
    nuts_processor: float
    compile_seconds: float
    wrong: int  # means more than MAX_ERROR off
    nuts_wrong: int
    num_means: int
    method: str
    verdict: str
    evaluations: int

    @property
    def ratio(self) -> float:
        """Of the wall times."""
        return self.seconds / self.nuts_seconds

    @property
    def processor_ratio(self) -> float:
        """Of the processor's seconds."""
        return self.processor / self.nuts_processor


def summary(rows: list[Row], num_not_run: int) -> str:
    """A line for each number that is aimed at."""
    ratios = [row.ratio for row in rows]
    processor = [row.processor_ratio for row in rows]
    above = [row.posterior for row in rows if row.ratio > 1]
    head = ("what", "by the clock", "of the processor", "asked for")
    lines = [
        (
            "vi.fit's time over NUTS's, median",
            f"{statistics.median(ratios):.2f}",
            f"{statistics.median(processor):.2f}",
            "<= 0.33",
        ),
        ("the largest", f"{max(ratios):.2f}", f"{max(processor):.2f}", "<= 1"),
        (
            "posteriors where vi.fit takes longer",
            str(len(above)),
            str(sum(ratio > 1 for ratio in processor)),
            "0",
        ),
        (
            "seconds of vi.fit, median",
            f"{statistics.median(row.seconds for row in rows):.1f}",
            f"{statistics.median(row.processor for row in rows):.1f}",
            "-",
        ),
        (
            "seconds of NUTS, median",
            f"{statistics.median(row.nuts_seconds for row in rows):.1f}",
            f"{statistics.median(row.nuts_processor for row in rows):.1f}",
            "-",
        ),
    ]
    wrong = sum(row.wrong for row in rows)
    nuts_wrong = sum(row.nuts_wrong for row in rows)
    note = (
        f"{len(rows)} posteriors, {num_not_run} not run. Means more than {MAX_ERROR} SD off: "
        f"{wrong} by vi.fit, {nuts_wrong} by NUTS, of {sum(row.num_means for row in rows):,}. "
        f"Float64; {report.used('jax', 'numpyro', 'vi_jax')}"
    )
    return f"{report.markdown_table(head, lines)}\n\n{note} {report.link('against_nuts')}"


def each(rows: list[Row], not_run: list[str]) -> report.LongTable:
    """A line for each posterior."""
    head = (
        "posterior",
        "s",
        "NUTS s",
        "ratio",
        "processor s",
        "NUTS processor s",
        "processor ratio",
        "compiling s",
        "wrong means",
        "NUTS wrong means",
        "means",
        "method",
        "verdict",
        "gradients",
    )
    lines = [
        (
            row.posterior,
            f"{row.seconds:.1f}",
            f"{row.nuts_seconds:.1f}",
            f"{row.ratio:.2f}",
            f"{row.processor:.1f}",
            f"{row.nuts_processor:.1f}",
            f"{row.processor_ratio:.2f}",
            f"{row.compile_seconds:.1f}",
            str(row.wrong),
            str(row.nuts_wrong),
            str(row.num_means),
            row.method,
            row.verdict,
            f"{row.evaluations:,}",
        )
        for row in rows
    ]
    lines += [(name, *["not run"] * (len(head) - 1)) for name in not_run]
    return report.LongTable(head, lines)
