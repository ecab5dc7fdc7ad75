"""The report of `check`: findings with their remedies, what could not be decided, and the time it
took.
"""

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

_WIDTH = 100


class Finding(NamedTuple):
    """One thing that is wrong, or almost surely wrong."""

    name: str  # one of `check.FINDINGS`
    severity: str  # "error": results are wrong; "warning": they are at risk
    message: str  # what was seen
    remedy: str  # what to do
    evidence: Mapping[str, Any]  # the numbers behind it, plain floats, ints and strings

    def __str__(self) -> str:
        numbers = ", ".join(f"{key} {_short(value)}" for key, value in self.evidence.items())
        lines = [
            f"{self.severity}: {self.name}",
            *_wrapped(self.message),
            *_wrapped(f"Remedy: {self.remedy}"),
        ]
        return "\n".join([*lines, *(_wrapped(f"[{numbers}]") if numbers else [])])

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


class Report(NamedTuple):
    """The findings of one `check`; prints as a page, `to_dict()` for machines."""

    findings: tuple[Finding, ...]
    done: tuple[str, ...]  # names of the checks that ran
    undecided: tuple[str, ...]  # what was left out or could not be decided, and why
    elapsed: float  # seconds, compiling included

    @property
    def ok(self) -> bool:
        """Whether nothing was found; what is in `undecided` was not looked at."""
        return not self.findings

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the findings, in the order found."""
        return tuple(finding.name for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists, strings and numbers."""
        findings = [
            {**finding._asdict(), "evidence": dict(finding.evidence)} for finding in self.findings
        ]
        rest = {"done": list(self.done), "undecided": list(self.undecided), "elapsed": self.elapsed}
        return {"ok": self.ok, "findings": findings, **rest}

    def __str__(self) -> str:
        count = len(self.findings)
        head = (
            f"{'no' if count == 0 else count} finding{'' if count == 1 else 's'}; "
            f"{len(self.done)} checks, {self.elapsed:.1f} s"
        )
        left_out = [
            line for note in self.undecided for line in _wrapped(f"undecided: {note}", "  ", "    ")
        ]
        return "\n".join([head, *map(str, self.findings), *left_out])

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


class Outcome(NamedTuple):
    """What one check found and what it could not tell."""

    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()


def flagged(*findings: Finding) -> Outcome:
    """The outcome of a check that found these."""
    return Outcome(findings)


def undecided(*notes: str) -> Outcome:
    """The outcome of a check that could not tell, and why."""
    return Outcome((), notes)


def error(name: str, message: str, remedy: str, **evidence: Any) -> Finding:
    """A finding that makes results wrong."""
    return Finding(
        name, "error", message, remedy, {key: _plain(value) for key, value in evidence.items()}
    )


def warning(name: str, message: str, remedy: str, **evidence: Any) -> Finding:
    """A finding that puts results at risk."""
    return Finding(
        name, "warning", message, remedy, {key: _plain(value) for key, value in evidence.items()}
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wrapped(text: str, first: str = "    ", later: str = "    ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=later)
