"""What a run writes while it goes: rows of metrics (JSON lines and TensorBoard), rows of timing,
and the live line.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import cli, terminal
from experiments.cli import UserError
from experiments.run.board import Board
from experiments.run.live import Line, Rate, Schedule, clock, per_second
from experiments.run.tracker import Guarded
from experiments.terminal import WIDTH
from vi_jax import files

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


class MetricsLog:
    """metrics.jsonl holds what is a function of the config alone, timing.jsonl what is not;
    TensorBoard has both.

    A tracker of the user's own is handed the same numbers.

    On resuming at a step, rows after it are dropped, so that the file ends as that of an unbroken
    run does.
    """

    def __init__(self, folder: Path, *, from_step: int, tracker: Guarded | None = None) -> None:
        self._tracker = tracker
        self._paths = [folder / METRICS, folder / TIMING]
        try:
            for path in self._paths:
                _keep_rows(path, from_step)
            self._files = [files.open_to_append(path) for path in self._paths]
        except OSError as error:
            raise UserError(
                f"{error.filename or folder} cannot be written ({error.strerror}); make room, or "
                "the folder writable, and run the same command again."
            ) from None
        if from_step and [row["step"] for row in read_rows(self._paths[0])[-1:]] != [from_step]:
            terminal.say(
                f"warning: {self._paths[0]} was damaged: its rows end before step {from_step:,}.",
            )
        self._board = Board(folder / "tensorboard", from_step=from_step)
        self._folder = folder
        self._has_failed = False

    def write(self, row: dict[str, Any], timing: dict[str, float] | None = None) -> None:
        """Appends a row (it has `step`) and flushes it.

        Raises:
          UserError: the disk refuses it.
        """
        numbers = {**row, **(timing or {})}
        scalars = {
            name: value
            for name, value in numbers.items()
            if name not in ("step", "alarm") and isinstance(value, int | float)
        }
        try:
            for file, part in zip(
                self._files, (row, {"step": row["step"], **timing} if timing else None), strict=True
            ):
                if part is not None:
                    file.write(json.dumps(part) + "\n")
                    file.flush()
            self._board.write(row["step"], scalars)
            if self._tracker is not None:
                self._tracker.log(row["step"], scalars)
        except OSError as error:
            self._has_failed = True
            raise UserError(
                f"the metrics of step {row['step']:,} cannot be written to {self._folder} "
                f"({error.strerror}). Make room, or the "
                "folder writable, and run the same command again: it goes on from the last "
                "checkpoint."
            ) from None

    def close(self) -> None:
        """Closes the files; a disk that refuses what is left is named on stderr, if it has not
        been.
        """
        parts: list[Any] = [*self._files, self._board]
        for each in parts:
            try:
                each.close()
            except OSError as error:
                if not self._has_failed:
                    terminal.say(
                        f"warning: {self._folder} could not take the last of its metrics "
                        f"({error.strerror}).",
                    )
                self._has_failed = True


class Silence:
    """What stands for a log and a live line in the processes that write none."""

    steps_per_second = 0.0

    def write(self, *args: Any, **options: Any) -> None:
        """Nothing; so do the rest."""

    trained = part = show = say = close = write


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file up to the first that is damaged, as the last one is after a
    crash; [] where there is none.
    """
    rows = []
    content = files.read_bytes(path) if files.kind(path) else b""
    for line in content.splitlines():
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int):
                break
        except (ValueError, TypeError, KeyError, RecursionError):
            break
        rows.append(row)
    return rows


def training_row(step: int, epoch: float, rate: float, metrics: Any) -> dict[str, Any]:
    """The columns of a block of steps: means over those that measured, none where none did."""
    numbers = {f"train/{name}": float(value) for name, value in metrics.items()}
    return {"step": step, "epoch": epoch, "train/learning_rate": rate} | {
        name: value for name, value in numbers.items() if not math.isnan(value)
    }


def evaluation_row(split: str, measures: Any) -> dict[str, Any]:
    """The columns of an evaluation: every number of its summary, a mean under the name alone, and
    the KL of each latent dimension.
    """
    row: dict[str, Any] = {}
    for name, value in measures.summary.items():
        if name in ("num_examples", "num_latents", "max_information"):
            continue  # the same in every row
        if isinstance(value, dict) and set(value) == {"mean", "stderr"}:
            row[f"{split}/{name}"] = value["mean"]
        elif isinstance(value, dict):
            row |= {
                f"{split}/{name}/{site}": part["mean"]
                for site, part in value.items()
                if isinstance(part, dict)
            }
        else:
            row[f"{split}/{name}"] = value
    row[f"{split}/elbo_stderr"] = measures.summary["elbo"]["stderr"]
    kls = measures.arrays["kl_per_dimension"]
    for site, kl in kls.items():
        prefix = f"{split}/kl_dimension_" if len(kls) == 1 else f"{split}/kl_dimension/{site}_"
        if kl.ndim == 1:
            row |= {f"{prefix}{d}": float(each) for d, each in enumerate(kl)}
    return row


class Progress:
    """The line of a run that trains: live on a terminal; elsewhere at each evaluation, and between
    them when it is due.
    """

    def __init__(
        self,
        *,
        start: int,
        total: int,
        steps_per_epoch: int,
        split: str = "test",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._split = split  # that is evaluated
        self._total = total
        self._steps_per_epoch = steps_per_epoch
        self._rate = Rate()
        self._test: float | None = None
        self._line = Line(total=total, start=start, schedule=Schedule(now=now))

    def trained(self, steps: int, seconds: float) -> None:
        """Counts steps towards the rate; leave out the first, which compiles, and evaluations."""
        self._rate.add(steps, seconds)

    @property
    def steps_per_second(self) -> float:
        """Of the last parts; 0 before any is counted."""
        return self._rate.value

    def part(
        self, step: int, steps: int, seconds: float | None, train: tuple[str, float], *, over: bool
    ) -> None:
        """Counts and shows a part of a block of steps.

        Args:
          step: that it ended at.
          steps: that it took.
          seconds: that it took; None of the first, which compiles.
          train: name and value of the bound on the training split, so far in the block, nats.
          over: the block ends here, and is shown with its evaluation.
        """
        if seconds is None:
            since = time.perf_counter() - cli.STARTED
            what = "step" if steps == 1 else f"{steps:,} steps"
            self.say(f"the first {what} done {since:.1f} s after the start")
        else:
            self.trained(steps, seconds)
        if not over:
            self.show(step, train, self._test, evaluated=False)

    def show(
        self, step: int, train: tuple[str, float], test: float | None, *, evaluated: bool
    ) -> None:
        """Updates the line: step, epochs, rate, time left, the bound on the training and on the
        evaluated split, nats. Nothing is shown before a rate is known, but evaluations.
        """
        self._test = test
        rate = self.steps_per_second
        if not (rate or evaluated):
            return
        left = f"{clock((self._total - step) / rate)} left" if rate else ""
        name, value = train
        parts = [
            f"step {step:,}/{self._total:,}",
            f"epoch {step / self._steps_per_epoch:,.1f}",
            per_second(rate, "steps") if rate else "",
            left,
            f"train {name} {value:,.2f}" + (" nats" if test is None else ""),
            "" if test is None else f"{self._split} ELBO {test:,.2f} nats",
        ]
        text = "  ".join(filter(None, parts))
        short = self._short(step, rate, left, train, digits=2)
        if len(short) >= WIDTH:
            short = self._short(step, rate, left, train, digits=1)
        self._line.show(step, text, short=short, always=evaluated, counts=bool(rate))

    def _short(
        self, step: int, rate: float, left: str, train: tuple[str, float], *, digits: int
    ) -> str:
        """The line for few columns."""
        name, value = train
        test = "" if self._test is None else f"{self._split} {self._test:,.{digits}f} "
        parts = [
            f"step {step:,}/{self._total:,} epoch {step / self._steps_per_epoch:,.0f}",
            per_second(rate, "").replace(" ", "") if rate else "",
            left,
            f"{name} {value:,.{digits}f} {test}nats",
        ]
        return " ".join(filter(None, parts))

    def say(self, text: str) -> None:
        """Prints a line without breaking the live one."""
        self._line.say(text)

    def close(self) -> None:
        """Leaves the line as it stands."""
        self._line.close()


def _keep_rows(path: Path, last_step: int) -> None:
    if files.kind(path):
        kept = [json.dumps(row) for row in read_rows(path) if row["step"] <= last_step]
        files.write_text(path, "".join(f"{row}\n" for row in kept))
