"""A tracker of the user's own: where the rows of metrics and the figures go beside the run folder.

`--tracker=FILE.py:FUNCTION` (or `package.module:function`) names a function that gets `name`,
`folder`, `config` (a plain dictionary) and `from_step` (where a run goes on; 0 of a new one),
whichever of them it has as arguments, and returns a `Tracker`. What it raises at the start ends
the command. Later it is a warning, once, and the run goes on without it: metrics.jsonl has all.
"""

from pathlib import Path
from typing import Any, Protocol

from experiments import choices, terminal
from experiments.choices import Room
from experiments.cli import UserError
from vi_jax import files

FLAG = "--tracker"
ROOM = Room("tracker", "experiments.run.tracker", names=("none",))  # none of our own
METHODS = ("log", "figure", "close")


class Tracker(Protocol):
    """What a function that --tracker names returns."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The metrics of a step, as a row of metrics.jsonl and of timing.jsonl has them."""

    def figure(self, name: str, path: str) -> None:
        """A figure of the end of the run, a PNG."""

    def close(self) -> None:
        """The end, also of a run that failed."""


class Trackers:
    """The trackers of the runs of a command, one a run folder; closed with their figures at the end
    of the block.

    Args:
      name: what --tracker says; none if empty.

    Raises:
      UserError: it names no function.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._opened: list[tuple[Path, Guarded]] = []
        if not name:
            return
        if not choices.is_outside(name):
            raise UserError(
                f"{FLAG}={name}: give a function of your own, FILE.py:FUNCTION or "
                "PACKAGE.MODULE:FUNCTION (docs/runs.md)."
            )
        self._signature = choices.find(ROOM, name, FLAG)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *error: Any) -> None:
        for folder, guarded in self._opened:
            if error[0] is None:
                guarded.figures(folder / "figures")
            guarded.close()

    def begin(self, config: Any, folder: Path, *, from_step: int) -> "Guarded | None":
        """The tracker of a run; None where none is asked for.

        Raises:
          UserError: its function failed, or what it returned is no tracker.
        """
        if not self._name:
            return None
        from experiments.run.record import to_plain

        known = {
            "name": config.name,
            "folder": str(folder),
            "config": to_plain(config),
            "from_step": from_step,
        }
        takes = self._signature.parameters
        given = {each: known[each] for each in known if each in takes or self._signature.takes_any}
        function = choices.load(ROOM, self._name, FLAG)
        try:
            tracker = function(**given)
        except Exception as error:  # whatever the user's own function raises
            raise UserError(
                f"{FLAG}={self._name}: {type(error).__name__}: {error}. Mend it, or train without "
                "it."
            ) from error
        lacking = [name for name in METHODS if not callable(getattr(tracker, name, None))]
        if lacking:
            raise UserError(
                f"{FLAG}={self._name} returned {type(tracker).__name__} without "
                f"{', '.join(lacking)}; a tracker has log(step, metrics), figure(name, path) and "
                "close()."
            )
        guarded = Guarded(tracker, self._name)
        self._opened.append((folder, guarded))
        return guarded


class Guarded:
    """A tracker whose first error is a warning, and that is left alone from then on."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self._tracker = tracker
        self._name = name
        self._has_failed = False

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Hands on a row."""
        self._call("log", step, metrics)

    def figures(self, folder: Path) -> None:
        """Hands on the figures of a folder."""
        if files.kind(folder) != files.FOLDER:
            return
        for path in sorted(folder.glob("*.png")):
            self._call("figure", path.stem, str(path))

    def close(self) -> None:
        """Ends it, also after an error."""
        self._has_failed = False
        self._call("close")

    def _call(self, method: str, *args: Any) -> None:
        if self._has_failed:
            return
        try:
            getattr(self._tracker, method)(*args)
        except Exception as error:  # whatever the user's own tracker raises
            self._has_failed = True
            terminal.say(
                f"warning: the tracker {self._name} failed in {method} ({type(error).__name__}: "
                f"{error}); the run goes on without it, and its metrics are in the run folder.",
            )
