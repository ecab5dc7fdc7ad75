"""What runs leave while they train: rows of metrics, checkpoints, the best, and an early stop.

One recorder serves a run by itself and the runs of a sweep, side by side in one program.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import build, cli
from experiments.evals import Measures
from experiments.evals.alarms import alarms
from experiments.run import devices, heartbeat, session
from experiments.run.checkpoints import Checkpoints
from experiments.run.loop import Block
from experiments.run.metrics import evaluation_row, training_row
from experiments.run.processes import any_of_them
from experiments.run.session import Built
from experiments.run.together import wait_for_all
from vi_jax.shard import Layout
from vi_jax.training import State, Totals


class Member(NamedTuple):
    """One run."""

    config: Any  # of its own
    folder: Path
    checkpoints: Checkpoints
    log: Any  # `MetricsLog`, or `Silence` in a process that writes nothing
    prefix: str = ""  # of what is said of it


class View(NamedTuple):
    """How one run is seen in what a block of all of them gives."""

    # (state of all, which) -> the state as the run by itself has it
    state: Callable[[State, int], State]
    leaf: Callable[[Any, int], Any]  # (pytree of all, which) -> its own


def of_one(tree: Any, which: int) -> Any:
    """The only run's own."""
    del which
    return tree


ALONE = View(of_one, of_one)


class Recorder:
    """Writes rows, saves checkpoints where they are due, keeps the best, and obeys a stop.

    Args:
      members: the runs.
      built: what their config stands for.
      layout: where their arrays lie.
      stop: `stopping.Stop`.
      progress: the live line.
      view: how a run is seen among its neighbours.
      label: of the bound on the live line.
    """

    def __init__(
        self,
        members: Sequence[Member],
        built: Built,
        *,
        layout: Layout,
        stop: Any,
        progress: Any,
        view: View = ALONE,
        label: str,
    ) -> None:
        self._members = members
        self._built = built
        self._layout = layout
        self._stop = stop
        self._progress = progress
        self._view = view
        self._label = label
        self._name = build.metric_name(built.config, built.model)
        self._rates = [build.learning_rate(member.config) for member in members]
        self._num_batches = num_batches(built)
        self._saved_at = time.monotonic()
        self._elbo: float | None = None
        self._measures: dict[int, tuple[int, Measures]] = {}

    def record(self, block: Block, alive: Sequence[int] = (0,)) -> None:
        """Records a block of the runs that go on.

        Raises:
          Requeue: a stop was asked for; all is saved.
          UserError: the disk refuses what is written.
        """
        # 1. a stop inside the block, or before its evaluation: the row comes when the run goes on
        stops = self._stop.asked()
        if stops and (not block.is_whole or block.evaluates):
            for which in alive:
                self._save(which, block, totals=self._view.leaf(block.info.totals, which))
            self._requeue(block, alive)
        # 2. rows, evaluations and checkpoints
        late = self._is_late()
        every = self._built.config.train.checkpoint_every
        is_due = block.ends or stops or late or block.now % every == 0
        self._record_all(block, alive, is_due=is_due)
        # 3. a stop between two blocks
        if stops and not block.ends:
            self._requeue(block, alive)
        if block.ends:
            self._wait(alive)

    def _record_all(self, block: Block, alive: Sequence[int], *, is_due: bool) -> None:
        """Records each run and shows the best of them; `is_due`: their checkpoints are."""
        if is_due:
            self._wait(alive)
        elbos = [self._record_one(which, block, is_due=is_due) for which in alive]
        known = [elbo for elbo in elbos if elbo is not None]
        self._elbo = max(known, default=self._elbo)
        if is_due:
            self._saved_at = time.monotonic()
        if alive:
            best = max(
                float(build.maximised(self._own(block, which), self._name)) for which in alive
            )
            self._progress.show(
                block.now, (self._label, best), self._elbo, evaluated=block.evaluates
            )

    def final_measures(self, which: int, state: State) -> Measures:
        """The evaluation of a run at its end; computed only where the last block had none."""
        step, measures = self._measures.get(which, (-1, None))
        if measures is None or step != int(state.step):
            return self._evaluate(which, state)
        return measures

    def _record_one(self, which: int, block: Block, *, is_due: bool) -> float | None:
        """Records one run; its ELBO, where it was evaluated."""
        member = self._members[which]
        state = self._view.state(block.state, which)
        row = self._row(which, block, state)
        elbo = None
        if block.evaluates:
            measures = self._evaluate(which, state)
            elbo = measures.summary["elbo"]["mean"]
            row |= evaluation_row(member.config.eval.split, measures)
            told = alarms(measures, member.config, block.now)
            if told:
                row["alarm"] = " ".join(told)
            for alarm in told:
                self._progress.say(f"{member.prefix}{alarm}")
        seconds = time.perf_counter() - cli.STARTED
        timing = {"steps_per_second": self._progress.steps_per_second, "seconds": seconds}
        member.log.write(row, timing)
        if is_due or member.checkpoints.is_best(elbo):
            member.checkpoints.save(state, elbo=elbo)
        member.checkpoints.check()
        return elbo

    def _row(self, which: int, block: Block, state: State) -> dict[str, Any]:
        """The columns of training."""
        member = self._members[which]
        skipped = int(state.skipped)  # which the schedule of the learning rate has not seen
        rate = float(self._rates[which](block.now - 1 - skipped))
        epoch = block.now / self._num_batches
        row = training_row(block.now, epoch, rate, self._own(block, which))
        if row.get("train/skipped"):
            self._progress.say(
                f"{member.prefix}up to step {block.now:,}, {skipped:,} steps were not finite and "
                f"are left out; {member.config.train.max_skipped:,} may be"
            )
        return row

    def _own(self, block: Block, which: int) -> dict[str, Any]:
        return self._view.leaf(block.metrics, which)

    def _evaluate(self, which: int, state: State) -> Measures:
        """The evaluation of a run at its step, which is remembered."""
        step = int(state.step)
        folder = self._members[which].prefix and f"{self._members[which].folder.name} "
        with heartbeat.compiling(f"evaluating {folder}at step {step:,}"):
            measures = self._measure(which, state)
        self._measures[which] = (step, measures)
        return measures

    def _measure(self, which: int, state: State) -> Measures:
        keys = session.keys(self._members[which].config)
        key = session.key_at(keys.evaluate, int(state.step))
        params = devices.whole_params(state, self._layout)
        return self._built.meter.measure(key, params, self._built.x)

    def _save(self, which: int, block: Block, *, totals: Totals) -> None:
        state = self._view.state(block.state, which)
        self._members[which].checkpoints.save(state, block=totals)

    def _wait(self, alive: Sequence[int]) -> None:
        """Returns when the last saves of all runs are on disk."""
        wait_for_all(self._members[which].checkpoints for which in alive)

    def _is_late(self) -> bool:
        """Whether the last save is too long ago, in any process."""
        minutes = self._built.config.train.checkpoint_minutes
        if not minutes:
            return False
        return any_of_them(time.monotonic() - self._saved_at >= 60 * minutes)

    def _requeue(self, block: Block, alive: Sequence[int]) -> None:
        self._wait(alive)
        total = self._built.config.train.num_steps
        everyone = " of every replica" if len(self._members) > 1 else ""
        saved = f"step {block.now:,} of {total:,}{everyone} is saved"
        raise cli.Requeue(self._stop.sentence(saved))


def num_batches(built: Built) -> int:
    """Batches of an epoch."""
    return -(-built.dataset.train.num // built.config.train.batch_size)


def whole(params: Any) -> Any:
    """Parameters, once they are computed."""
    return jax.block_until_ready(params)
