"""Checkpoints of runs side by side, which go on from one step together."""

from collections.abc import Iterable

from experiments.run.checkpoints import Checkpoints


def common_steps(runs: Iterable[Checkpoints]) -> set[int]:
    """The steps of which all of some runs have a checkpoint."""
    steps = [set(each.steps) for each in runs]
    return set.intersection(*steps) if steps else set()


def newest_common_step(runs: Iterable[Checkpoints]) -> set[int]:
    """The newest step whose checkpoint all of some runs are known to have; empty where none is."""
    steps = [set(each.good_steps) for each in runs]
    common = set.intersection(*steps) if steps else set()
    return {max(common)} if common else set()


def wait_for_all(runs: Iterable[Checkpoints]) -> None:
    """Returns when the last saves of runs that go on together are on disk; only then is removed
    what they make superfluous.

    Raises:
      UserError: one could not be written.
    """
    waiting = list(runs)
    for each in waiting:
        each.wait()
    for each in waiting:
        each.remove_old()
