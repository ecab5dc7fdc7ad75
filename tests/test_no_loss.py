"""Whatever ends a run, and at whichever of its writes, a whole checkpoint is there.

Faults are put into the writes of the process itself, those of C++ included (tests/faults.c, by
LD_PRELOAD): killed before each, in the middle of each, sent SIGTERM at each, no room from each on.
So a position is exact, and every one can be tried. Linux with a C compiler; the sample is part of
`pytest -m integration`, every position of `pytest -m slow` (an hour of one core; FAULTS_SHARE=3/10
takes every tenth from the third on).
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from command_helpers import Prepared, as_flags
from fault_program import block_of, state_of
from helpers import tree_equal

from experiments.run import lock, session, step_folders
from experiments.run.checkpoints import Checkpoints
from experiments.run.record import read_config

pytest_plugins = ("command_helpers",)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="the faults are of Linux, by a library that a C compiler (cc) makes",
)
LIMIT = 240  # seconds that no run of these takes: one that hangs
FIELDS = dict(
    train__num_steps=6,
    train__log_every=2,
    train__eval_every=2,
    train__checkpoint_every=2,
    train__keep_checkpoints=1,
)


class Forks:
    """The program that runs commands and saves with a fault, see tests/fault_program.py."""

    def __init__(self, folder, cache):
        self.folder = folder
        self._cache = cache
        library = folder / "faults.so"
        source = Path(__file__).with_name("faults.c")
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
        subprocess.run(command, check=True)
        self._program = Prepared("fault_program.py", LD_PRELOAD=str(library))

    def __call__(self, folder, *, at=0, kind="count", **task):
        """The exit code, what was printed, and the operations, each `(name, path)`."""
        log = self.folder / "log"
        out = self.folder / "out"
        log.write_text("")
        fault = {"folder": str(folder), "at": at, "kind": kind}
        files = {"log": str(log), "out": str(out), "limit": LIMIT}
        code = self._program({**fault, **files, **task})
        assert code is not None, f"it hangs after {LIMIT} s: {out.read_text()}"
        operations = [tuple(line.split(" ")[1:]) for line in log.read_text().splitlines()]
        return code, out.read_text(), operations

    def train(self, folder, *, at=0, kind="count", **changes):
        """The same, of a run of experiments.train in a folder."""
        flags = as_flags(**FIELDS | changes)
        argv = ["train", *flags, f"--workdir={folder}", f"--compilation_cache={self._cache}"]
        return self(folder, at=at, kind=kind, argv=argv)

    def close(self):
        """Ends the program."""
        self._program.close()


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """The program, started once."""
    with contextlib.closing(
        Forks(tmp_path_factory.mktemp("faults"), tmp_path_factory.mktemp("compiled"))
    ) as made:
        yield made


def positions(count, *, sample):
    """Of a number of operations: all, or some that are spread over them and not at even steps."""
    if not sample:
        which, shares = map(int, os.environ.get("FAULTS_SHARE", "1/1").split("/"))
        return list(range(which, count + 1, shares))
    share = (5**0.5 - 1) / 2  # of the golden section: any few of its multiples lie apart
    return sorted({1 + int(count * (number * share % 1)) for number in range(1, sample + 1)})


def are_ended(places, sample):
    """The positions at which the run is also ended: each twentieth, of a sample the first."""
    return set(places[:1] if sample else places[::20])


every = pytest.mark.parametrize(
    "sample",
    [pytest.param(2, marks=pytest.mark.integration), pytest.param(0, marks=pytest.mark.slow)],
    ids=["sample", "every position"],
)


# --- saves alone
# -------------------------------------------------------------------------------------------------

# What is there before, and what is saved then: step, ELBO, steps of the block, another seed.
SCRIPTS = {
    "one after the other": ([], [(1, None, 0, 0), (2, None, 0, 0), (3, None, 0, 0)], False),
    "the best": ([(1, -3.0, 0, 0)], [(2, -4.0, 0, 0), (3, -2.0, 0, 0), (4, -5.0, 0, 0)], True),
    "in a block, then out of it": ([(2, None, 2, 0)], [(2, -3.0, 0, 0), (3, -4.0, 0, 0)], True),
    "another of the same step": ([(2, None, 0, 0)], [(2, None, 0, 1), (3, None, 0, 1)], False),
}


def script_of(saves, keep_best):
    names = ("step", "elbo", "block", "seed")
    return {
        "keep": 1,
        "keep_best": keep_best,
        "saves": [dict(zip(names, each, strict=True)) for each in saves],
    }


def plain(state):
    return state._replace(key=jax.random.key_data(state.key))


def newest(folder, *, read_only):
    """The step, the seed and the block of what is restored, all of it as it was saved."""
    with Checkpoints(folder, keep=1, read_only=read_only) as saves:
        state = saves.restore_latest(state_of(0))
    step = int(state.step)
    [seed] = [seed for seed in (0, 1) if tree_equal(plain(state), plain(state_of(step, seed)))]
    assert saves.block is None or tree_equal(saves.block, block_of(2))
    return step, seed, saves.block is not None


@pytest.mark.cases(
    rest=None,
    slow=[
        "one after the other-kill-sample",
        "another of the same step-kill-sample",
        "another of the same step-torn-sample",
        "the best-torn-sample",
        "in a block, then out of it-torn-sample",
    ],
)
@every
@pytest.mark.parametrize("kind", ["kill", "torn"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_save_that_is_killed_loses_nothing(forks, tmp_path, name, kind, sample):
    """Killed at each write of a few saves: what was whole before is there, or what followed it; to
    look at it changes nothing, and the same saves end as if nothing had been.
    """
    before, saves, keep_best = SCRIPTS[name]
    start = tmp_path / "start" / "c"
    start.parent.mkdir()
    if before:
        forks(start, save=str(start), script=script_of(before, keep_best))
        start.with_name("saved.txt").unlink()
    whole = tmp_path / "whole" / "c"
    shutil.copytree(start.parent, whole.parent)
    code, said, operations = forks(whole, save=str(whole), script=script_of(saves, keep_best))
    assert (code, said) == (0, "")
    order = [(step, seed) for step, _, _, seed in [*before, *saves]]
    for at in positions(len(operations), sample=sample):
        if kind == "torn" and operations[at - 1][0] != "write":
            continue
        folder = tmp_path / str(at) / "c"
        shutil.copytree(start.parent, folder.parent)
        task = {"save": str(folder), "script": script_of(saves, keep_best)}
        code, said, done = forks(folder, at=at, kind=kind, **task)
        where = f"{name}, {kind} at {at}: {done[-1]}"
        assert (code, said) == (-9, ""), where
        log = folder.with_name("saved.txt")
        saved = log.read_text().split() if log.exists() else []
        if not step_folders.steps_in(folder):
            assert (before, saved) == ([], []), where
        else:
            found = newest(folder, read_only=True)
            latest = max(place for place, each in enumerate(order) if each == found[:2])
            assert latest >= len(before) + len(saved) - 1, where
            assert newest(folder, read_only=False) == found, where
        code, said, _ = forks(folder, **task)
        assert (code, said) == (0, ""), where
        assert sorted(os.listdir(folder)) == sorted(os.listdir(whole)), where
        assert newest(folder, read_only=True) == newest(whole, read_only=True), where
        shutil.rmtree(folder.parent)


@every
def test_a_save_that_finds_no_room_says_so_and_loses_nothing(forks, tmp_path, sample):
    before, saves, keep_best = SCRIPTS["in a block, then out of it"]
    start = tmp_path / "start" / "c"
    start.parent.mkdir()
    forks(start, save=str(start), script=script_of(before, keep_best))
    counted = tmp_path / "counted" / "c"
    shutil.copytree(start.parent, counted.parent)
    _, _, operations = forks(counted, save=str(counted), script=script_of(saves, keep_best))
    for at in positions(len(operations), sample=sample):
        folder = tmp_path / str(at) / "c"
        shutil.copytree(start.parent, folder.parent)
        task = {"save": str(folder), "script": script_of(saves, keep_best)}
        code, said, done = forks(folder, at=at, kind="full", **task)
        assert code in (0, 1), said
        assert code == 0 or "No space left on device" in said.splitlines()[-1], done[at - 1]
        assert code == 0 or str(folder) in said.splitlines()[-1], done[at - 1]
        assert newest(folder, read_only=True)[0] in (2, 3)
        code, said, _ = forks(folder, **task)
        assert (code, said) == (0, ""), done[at - 1]
        assert newest(folder, read_only=True)[0] == 3
        shutil.rmtree(folder.parent)


# --- runs
# -------------------------------------------------------------------------------------------------


def restored(folder, config):
    """The newest state of a run, its key as numbers."""
    like = session.start_state(config, session.make_model(config, session.load_data(config)))
    with Checkpoints(folder / "checkpoints", keep=1, read_only=True) as saves:
        state = saves.restore_latest(like)
    return None if state is None else plain(state)


@pytest.fixture(scope="module")
def unbroken(forks, tmp_path_factory):
    """A whole run, and its states after each step, from one that has saved each."""
    folder = tmp_path_factory.mktemp("unbroken")
    code, said, operations = forks.train(folder / "whole")
    assert code == 0, said
    code, said, _ = forks.train(
        folder / "steps", train__log_every=1, train__checkpoint_every=1, train__keep_checkpoints=9
    )
    assert code == 0, said
    config = read_config(folder / "whole")
    like = session.start_state(config, session.make_model(config, session.load_data(config)))
    with Checkpoints(folder / "steps" / "checkpoints", keep=9, read_only=True) as saves:
        states = {step: plain(saves.restore(str(step), like)) for step in saves.steps}
    assert sorted(states) == [1, 2, 3, 4, 5, 6]
    return folder / "whole", config, states, operations


def assert_ends_like(forks, folder, whole, config):
    """The same command again ends the run, with the parameters and the record of the unbroken."""
    code, said, _ = forks.train(folder)
    assert code == 0, said
    assert tree_equal(restored(folder, config), restored(whole, config))
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert sorted(os.listdir(folder / "checkpoints")) == ["6"]


@every
def test_stopped_at_a_write_and_then_killed_at_one_a_run_loses_nothing(
    forks, unbroken, tmp_path, sample
):
    """SIGTERM at each write of a run with one checkpoint; in each of the states that this leaves,
    `kill -9` at each write of the next start. There is a whole checkpoint, bitwise that of the
    unbroken run.
    """
    whole, config, states, operations = unbroken
    last = 1 + max(at for at, each in enumerate(operations) if "checkpoints" in each[1])
    stopped = {}
    places = positions(last, sample=sample)
    for at in places:
        folder = tmp_path / "stopped" / str(at)
        code, said, _ = forks.train(folder, at=at, kind="term")
        assert code in (0, 75), said
        if not (folder / "checkpoints").exists() or not os.listdir(folder / "checkpoints"):
            assert code == 75
            assert "nothing is lost" in said
            continue
        state = restored(folder, config)
        assert tree_equal(state, states[int(state.step)]), f"SIGTERM at {operations[at - 1]}"
        rows = (folder / "metrics.jsonl").read_bytes()
        stopped.setdefault((int(state.step), rows), folder)
    # inside the first block, and after the second, whose one part follows what the first one writes
    assert {step for step, _ in stopped} >= {1, 4} or len(places) < 50
    assert stopped
    for (step, _), before in sorted(stopped.items())[: 1 if sample else None]:
        counted = tmp_path / "counted"
        shutil.copytree(before, counted)
        code, said, operations = forks.train(counted)
        assert code == 0, said
        shutil.rmtree(counted)
        last = 1 + max(at for at, each in enumerate(operations) if "checkpoints" in each[1])
        places = positions(last, sample=sample and 2)
        for at in places:
            folder = tmp_path / "killed"
            shutil.copytree(before, folder)
            code, said, _ = forks.train(folder, at=at, kind="kill")
            assert code == -9, said
            where = f"stopped at step {step}, killed at {at}: {operations[at - 1]}"
            state = restored(folder, config)
            assert state is not None, where
            assert int(state.step) >= step, where
            assert tree_equal(state, states[int(state.step)]), where
            if at in are_ended(places, sample):
                assert_ends_like(forks, folder, whole, config)
            shutil.rmtree(folder)


@pytest.mark.cases(rest=None, slow=["1", "3"])
@pytest.mark.integration
@pytest.mark.parametrize("at", [1, 2, 3])
def test_stopped_at_its_first_writes_a_run_says_so(forks, tmp_path, at):
    code, said, _ = forks.train(tmp_path / "run", at=at, kind="term")
    assert code == 75, said
    assert "nothing is lost" in said


@every
def test_a_full_disk_ends_a_run_in_a_sentence(forks, unbroken, tmp_path, sample):
    """No room from each of the first 200 writes on: a sentence that names the folder, no hang, no
    lock left, and nothing lost.
    """
    whole, config, states, operations = unbroken
    places = positions(min(len(operations), 200), sample=sample)
    for at in places:
        folder = tmp_path / "run"
        code, said, done = forks.train(folder, at=at, kind="full")
        where = f"full from {at} on, {operations[at - 1]}: {said}"
        takes_room = [each for each in done[at - 1 :] if each[0] in ("create", "write", "mkdir")]
        assert code == (2 if takes_room else 0), where
        if code:
            sentence = said.splitlines()[-1]
            assert sentence.startswith("error: "), where
            assert "No space left on device" in sentence, where
            assert str(folder) in sentence, where
            assert "Traceback" not in said, where
        with lock.locked(folder):
            pass
        renamed = [each[1] for each in done if each[0] == "rename"]
        kept = [int(name.rsplit("/", 1)[1]) for name in renamed if name[-1:].isdecimal()]
        state = restored(folder, config) if (folder / "checkpoints").exists() else None
        assert (int(state.step) if state else 0) == max(kept, default=0), where
        assert state is None or tree_equal(state, states[int(state.step)]), where
        if at in are_ended(places, sample):
            assert_ends_like(forks, folder, whole, config)
        shutil.rmtree(folder)


REPLICAS = {"replicas": 2, "train__keep_best": True}


@every
def test_replicas_that_are_killed_go_on_together(forks, tmp_path, sample):
    """Killed at each write of a sweep with one checkpoint a replica: there is a step that both have
    whole, if either has one, and they end as they would have.
    """
    whole = tmp_path / "whole"
    code, said, operations = forks.train(whole, **REPLICAS)
    assert code == 0, said
    last = 1 + max(at for at, each in enumerate(operations) if "checkpoints" in each[1])
    places = positions(last, sample=sample)
    had_one = 0
    for at in places:
        folder = tmp_path / "run"
        code, said, done = forks.train(folder, at=at, kind="kill", **REPLICAS)
        where = f"killed at {at}: {done[-1]}"
        assert code == -9, said
        steps = []
        for name in ("replica_0", "replica_1"):
            if (folder / name / "config.json").exists():
                config = read_config(folder / name)
                state = restored(folder / name, config)
                found = step_folders.steps_in(folder / name / "checkpoints")
                assert (state is None) == (found == []), where
                steps.append(set(found))
        if len(steps) == 2 and steps[0] and steps[1]:
            assert steps[0] & steps[1], where
            had_one += 1
        if at in are_ended(places, sample):
            code, said, _ = forks.train(folder, **REPLICAS)
            assert code == 0, said
            for name in ("replica_0", "replica_1"):
                metrics = Path(name) / "metrics.jsonl"
                assert (folder / metrics).read_bytes() == (whole / metrics).read_bytes(), where
                kept = step_folders.steps_in(folder / name / "checkpoints")
                assert kept == step_folders.steps_in(whole / name / "checkpoints"), where
        shutil.rmtree(folder)
    assert had_one
