"""Checkpoints: what is saved comes back to the last bit, or is named as damaged; a save that fails
says so.
"""

import functools
import os
import pickle
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import ROOT, environment, small
from helpers import tree_equal

import vi_jax as vi
from experiments import build
from experiments.cli import UserError
from experiments.run import session, step_folders
from experiments.run.checkpoints import Checkpoints
from experiments.run.checksum import checksum
from experiments.run.saved import to_leaves
from experiments.run.together import common_steps, newest_common_step, wait_for_all
from vi_jax.training import State

ORBAX = "orbax.checkpoint.experimental.v1"


def made_state(seed=0, step=7):
    """A small state with every kind of part: a typed key, a moment of Adam, averaged parameters, a
    scalar.
    """
    return first_state(seed)._replace(step=jnp.int32(step))


@functools.cache
def first_state(seed):
    config = small()
    model = session.make_model(config, session.load_data(config))
    state = vi.init_state(jax.random.key(seed), model.init, build.optimizer(config), ema=True)
    filled = [
        leaf + 0.5 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        for leaf in jax.tree.leaves(state.opt_state)
    ]
    opt_state = jax.tree.unflatten(jax.tree.structure(state.opt_state), filled)
    return state._replace(opt_state=opt_state)


def plain_key(state):
    return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.integration
def test_a_checkpoint_gives_the_state_back(tmp_path):
    state = made_state()
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        checkpoints.save(state)
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        assert checkpoints.steps == [7]
        back = checkpoints.restore_latest(made_state(seed=1, step=0))
    assert jnp.issubdtype(back.key.dtype, jax.dtypes.prng_key)
    assert tree_equal(plain_key(back), plain_key(state))
    assert not tree_equal(plain_key(back), plain_key(made_state(seed=1, step=7)))
    assert [leaf.dtype for leaf in jax.tree.leaves(back)] == [
        leaf.dtype for leaf in jax.tree.leaves(state)
    ]


def test_the_last_few_checkpoints_are_kept(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        assert checkpoints.restore_latest(made_state()) is None
        for step in (1, 2, 3):
            checkpoints.save(made_state(step=step))
        checkpoints.wait()
        checkpoints.save(made_state(step=3))  # again, as after a fall back to an older one
        checkpoints.wait()
        assert checkpoints.steps == [2, 3]


class Bomb:
    """Says so if it is ever unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "bytes flipped": lambda content: bytes(
        byte ^ 0x55 if i % 7 == 0 else byte for i, byte in enumerate(content)
    ),
    "one byte flipped": lambda content: (
        content[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 1])
        + content[len(content) // 2 + 1 :]
    ),
    "emptied": lambda content: b"",
    "pickled": lambda content: pickle.dumps(Bomb()),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(made_state(step=step))
    return folder


@pytest.mark.integration
def test_any_damaged_file_is_found(saved, tmp_path, capfd):
    """File by file: the newest checkpoint is restored to the last bit, or is named, and the one
    before it taken.

    No damage of a file unpickles it.
    """
    files = sorted(
        path.relative_to(saved)
        for path in (saved / "2").rglob("*")
        if path.is_file() and path.stat().st_size
    )
    found = []
    for number, file in enumerate(files * 2):
        folder = tmp_path / str(number)  # a folder of its own: storage caches by path
        shutil.copytree(saved, folder)
        damage = list(DAMAGES.values())[number % len(DAMAGES)]
        (folder / file).write_bytes(damage((folder / file).read_bytes()))
        with Checkpoints(folder, keep=2) as checkpoints:
            state = checkpoints.restore_latest(made_state(seed=1, step=0))
        err = capfd.readouterr().err
        assert "Traceback" not in err
        assert tree_equal(plain_key(state), plain_key(made_state(step=int(state.step))))
        if int(state.step) == 1:
            found.append(file.name)
            assert err.startswith(f"warning: the checkpoint {folder / '2'} is damaged")
            assert err.count("\n") == 1
    assert len(found) >= 4, f"hardly any file seems to matter: {found} of {files}"


def test_sound_files_with_other_numbers_are_found(saved, tmp_path, capsys):
    """The arrays of step 1 in the place of those of step 2: they read well, and are not what was
    saved.
    """
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(folder / "1" / "state", folder / "2" / "state")
    with Checkpoints(folder, keep=2) as checkpoints:
        state = checkpoints.restore_latest(made_state(seed=1, step=0))
    assert (
        f"{folder / '2'} is damaged: its numbers are not those that were saved"
        in capsys.readouterr().err
    )
    assert int(state.step) == 1


def test_all_damaged_is_an_error(saved, tmp_path, capsys, monkeypatch):
    """Found before Orbax reads them: its threads would print a traceback each for a file that is
    gone.
    """
    folder = tmp_path / "checkpoints"
    read = []
    shutil.copytree(saved, folder)
    for path in folder.glob("*/state/d/*"):
        path.unlink()
    monkeypatch.setattr(f"{ORBAX}.load", lambda path, abstract: read.append(path))
    with (
        Checkpoints(folder, keep=2) as checkpoints,
        pytest.raises(
            UserError,
            match=r"no checkpoint in .* can be read \(steps 1, 2\); start again with --overwrite",
        ),
    ):
        checkpoints.restore_latest(made_state())
    assert capsys.readouterr().err.count("warning: the checkpoint") == 2
    assert read == []


def test_a_checkpoint_of_another_model_is_no_checkpoint(saved, capsys):
    config = small(model__network__hidden=(5,))
    other = session.start_state(config, session.make_model(config, session.load_data(config)))
    with (
        Checkpoints(saved, keep=2) as checkpoints,
        pytest.raises(UserError, match="no checkpoint in"),
    ):
        checkpoints.restore_latest(other)
    assert (
        capsys.readouterr().err.count(
            "damaged or of another model (its arrays are not those of this model)"
        )
        == 2
    )


# --- while training goes on
# -----------------------------------------------------------------------------------------


def large_state(step=0):
    params = {f"w{i}": jnp.full((300, 1000), float(i)) for i in range(6)}
    return State(jnp.int32(step), jax.random.key(0), params, (), ())


def test_a_state_may_be_donated_while_it_is_saved(tmp_path):
    """What is written is the state that was given, although its memory is asked for by the next
    block at once.
    """
    advance = jax.jit(
        lambda state: state._replace(
            step=state.step + 1, params=jax.tree.map(lambda w: w + 1.0, state.params)
        ),
        donate_argnums=0,
    )
    state = large_state()
    with Checkpoints(tmp_path / "c", keep=9) as checkpoints:
        for _ in range(4):
            checkpoints.save(state)
            for _ in range(3):
                state = advance(state)
    with Checkpoints(tmp_path / "c", keep=9) as checkpoints:
        assert checkpoints.steps == [0, 3, 6, 9]
        for step in checkpoints.steps:
            back = checkpoints.restore(str(step), large_state())
            for i in range(6):
                np.testing.assert_array_equal(back.params[f"w{i}"], float(i + step))


def test_a_save_returns_before_it_is_written(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        checkpoints.save(large_state(step=1))
        assert checkpoints._save is not None
        checkpoints.check()  # does not wait
        assert not list((tmp_path / "c").glob("1/_CHECKPOINT_METADATA")), (
            "the folder appears once it is whole"
        )
        checkpoints.wait()
        assert list((tmp_path / "c").glob("1/_CHECKPOINT_METADATA"))


def test_a_clock_that_goes_back_changes_nothing(tmp_path, monkeypatch):
    now = iter(range(2_000_000_000, 0, -50_000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(made_state(step=step))
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.steps == [2, 3]
        assert int(checkpoints.restore_latest(made_state()).step) == 3


# --- the best one
# -------------------------------------------------------------------------------------------------


def save_all(folder, elbos, *, keep=1):
    with Checkpoints(folder, keep=keep, keep_best=True) as checkpoints:
        for step, elbo in elbos.items():
            checkpoints.save(made_state(step=step), elbo=elbo)
    return checkpoints


@pytest.mark.integration
def test_the_best_checkpoint_is_kept(tmp_path):
    folder = tmp_path / "c"
    save_all(folder, {1: -5.0, 2: -3.0, 3: float("nan"), 4: None, 5: -4.0})
    with Checkpoints(folder, keep=1, keep_best=True) as checkpoints:
        assert checkpoints.steps == [2, 5]
        assert int(checkpoints.restore("best", made_state()).step) == 2
        assert int(checkpoints.restore("latest", made_state()).step) == 5
        assert int(checkpoints.restore("5", made_state()).step) == 5
        assert not checkpoints.is_best(-3.0)
        assert not checkpoints.is_best(float("nan"))
        assert checkpoints.is_best(-2.9)
    save_all(folder, {6: -2.0, 7: -9.0})  # by a run that goes on
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.steps == [6, 7]


@pytest.mark.parametrize(
    ("which", "words"),
    [("best", "none has an ELBO saved"), ("9", "none of latest, best"), ("-1", "steps 1, 2.")],
)
def test_a_checkpoint_that_is_not_there(saved, which, words):
    with (
        Checkpoints(saved, keep=2, read_only=True) as checkpoints,
        pytest.raises(UserError) as caught,
    ):
        checkpoints.restore(which, made_state())
    assert words in str(caught.value)
    assert "has those of the steps 1, 2" in str(caught.value)


def test_one_that_is_asked_for_by_name_has_no_substitute(saved, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(saved, folder)
    (folder / "2" / "state" / "manifest.ocdbt").unlink()
    with (
        Checkpoints(folder, keep=2) as checkpoints,
        pytest.raises(UserError, match=r"c/2 is damaged"),
    ):
        checkpoints.restore("2", made_state())


def test_a_moved_checkpoint_is_noticed(saved, tmp_path, capsys):
    folder = tmp_path / "c"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "2", folder / "3")
    with Checkpoints(folder, keep=3) as checkpoints:
        assert int(checkpoints.restore_latest(made_state()).step) == 2
    assert "c/3 is of step 2: it has been moved" in capsys.readouterr().err


# --- saved again: nothing is removed before its successor is whole
# -------------------------------------------------------------------------------------------------


def traces(folder):
    """{file: its number, its time} of a folder: what is written anew has others."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files
    }


def test_a_state_that_is_saved_already_is_not_written_again(tmp_path):
    """Not by the process that saved it, nor by one that restored it; an ELBO is added to it."""
    folder = tmp_path / "c"
    with Checkpoints(folder, keep=1, keep_best=True) as checkpoints:
        checkpoints.save(made_state())
        checkpoints.wait()
        before = traces(folder / "7")
        checkpoints.save(made_state())
        checkpoints.wait()
        assert traces(folder / "7") == before
    with Checkpoints(folder, keep=1, keep_best=True) as checkpoints:
        checkpoints.restore_latest(made_state(seed=1))
        assert checkpoints.is_best(-3.0)
        checkpoints.save(made_state(), elbo=-3.0)
        assert not checkpoints.is_best(-3.0)
        checkpoints.save(made_state(step=8), elbo=-4.0)
    after = traces(folder / "7")
    assert {path: after.get(path) for path in before} == before
    with Checkpoints(folder, keep=1, keep_best=True) as checkpoints:
        assert checkpoints.steps == [7, 8]
        assert not checkpoints.is_best(-3.5)
        assert tree_equal(
            plain_key(checkpoints.restore("best", made_state(seed=1))), plain_key(made_state())
        )


def test_a_best_one_that_is_damaged_is_not_the_best(tmp_path, capsys):
    """Else the run that comes to it again would not save it, and keep what nobody can read."""
    folder = tmp_path / "c"
    save_all(folder, {1: -5.0, 2: -3.0}, keep=2)
    (folder / "2" / "state" / "manifest.ocdbt").unlink()
    with Checkpoints(folder, keep=2, keep_best=True) as checkpoints:
        assert not checkpoints.is_best(-3.0)
        assert int(checkpoints.restore_latest(made_state()).step) == 1
        assert "c/2 is damaged" in capsys.readouterr().err
        assert checkpoints.is_best(-3.0)
        assert not checkpoints.is_best(-5.0)
        checkpoints.save(made_state(step=2), elbo=-3.0)
        assert not checkpoints.is_best(-3.0)
        checkpoints.wait()
        assert int(checkpoints.restore("best", made_state()).step) == 2


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"elbo": "much"}', b"\x00\xff"])
def test_a_damaged_file_of_what_came_later_is_named(saved, tmp_path, capsys, content):
    folder = tmp_path / "c"
    shutil.copytree(saved, folder)
    (folder / "2" / "later.json").write_bytes(content)
    with Checkpoints(folder, keep=2, keep_best=True) as checkpoints:
        state = checkpoints.restore_latest(made_state())
    err = capsys.readouterr().err
    assert int(state.step) == 2 or err.startswith(f"warning: the checkpoint {folder / '2'} is")
    assert int(state.step) == 1 or content.startswith(b"{")


def test_another_state_of_a_step_takes_the_place_of_the_one_there_once_it_is_whole(
    tmp_path, monkeypatch
):
    folder = tmp_path / "c"
    seen = []
    settle = step_folders.settle

    def settled(where, step):
        seen.append({path.name for path in where.iterdir()})
        settle(where, step)

    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(made_state())
    monkeypatch.setattr(step_folders, "settle", settled)
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(made_state(seed=1))
        checkpoints.wait()
        back = checkpoints.restore_latest(made_state())
    assert tree_equal(plain_key(back), plain_key(made_state(seed=1)))
    assert seen == [{"7", "7.successor"}]
    assert [path.name for path in folder.iterdir()] == ["7"]


def test_a_run_that_went_back_keeps_what_it_saves(saved, tmp_path, capsys):
    """Step 2 is damaged and one checkpoint is kept: it is not that one."""
    folder = tmp_path / "c"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "2", folder / "9")
    with Checkpoints(folder, keep=1) as checkpoints:
        assert int(checkpoints.restore_latest(made_state()).step) == 2
        assert "c/9 is of step 2" in capsys.readouterr().err
        checkpoints.save(made_state(step=3))
        checkpoints.wait()
        assert checkpoints.steps == [3, 9]
        checkpoints.save(made_state(step=9))
        checkpoints.wait()
        assert checkpoints.steps == [9]
        assert int(checkpoints.restore_latest(made_state()).step) == 9


def test_runs_that_go_on_together_keep_a_step_that_all_have(tmp_path):
    """One has the best at steps of its own, and the save of another is not over."""
    runs = []
    for name in ("a", "b"):
        common = functools.partial(newest_common_step, runs)
        runs.append(Checkpoints(tmp_path / name, keep=1, keep_best=True, also_keeps=common))
    first, second = runs
    for each in runs:
        each.save(made_state(step=1), elbo=-5.0)
    wait_for_all(runs)
    for step in (2, 3, 4):
        first.save(made_state(step=step), elbo=-5.0 + step)
        first.wait()
    assert first.steps == [1, 4]
    first.save(made_state(step=5))
    first.wait()
    assert (first.steps, second.steps) == ([1, 4, 5], [1])
    second.save(made_state(step=5))
    assert common_steps(runs) == {1}
    wait_for_all(runs)
    assert (first.steps, second.steps) == ([4, 5], [1, 5])  # its best
    assert common_steps(runs) == {5}


def test_a_checkpoint_of_the_earlier_layout_is_read(tmp_path):
    """As Orbax's Checkpointer lays it out, by which earlier versions wrote them."""
    import orbax.checkpoint.experimental.v1 as ocp

    leaves = to_leaves(made_state())
    with ocp.training.Checkpointer(tmp_path / "c") as before:
        beside = {"checksum": checksum(leaves), "elbo": -2.0}
        before.save(7, leaves, force=True, custom_metadata=beside)
    with Checkpoints(tmp_path / "c", keep=1, keep_best=True) as checkpoints:
        assert not checkpoints.is_best(-2.5)
        assert tree_equal(
            plain_key(checkpoints.restore_latest(made_state(seed=1))), plain_key(made_state())
        )


@pytest.mark.parametrize("place", ["7", "7/_CHECKPOINT_METADATA", "7/state/d", "7/later.json"])
def test_a_pipe_or_a_link_in_a_checkpoint_is_named_and_not_waited_for(tmp_path, capsys, place):
    folder = tmp_path / "c"
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(made_state(step=6))
        checkpoints.save(made_state())
    elsewhere = tmp_path / "elsewhere"
    if (folder / place).exists():
        shutil.move(folder / place, elsewhere)
    if place == "7/state/d":
        (folder / place).symlink_to(elsewhere)
    else:
        os.mkfifo(folder / place)
    with Checkpoints(folder, keep=2, keep_best=True) as checkpoints:
        assert int(checkpoints.restore_latest(made_state()).step) == 6
        assert f"warning: the checkpoint {folder / '7'} is damaged" in capsys.readouterr().err
        checkpoints.save(made_state())
        checkpoints.wait()
        assert int(checkpoints.restore_latest(made_state()).step) == 7
    assert elsewhere.exists() or place == "7/later.json"
    assert sorted(path.name for path in folder.iterdir()) == ["6", "7"]


class Cut(BaseException):
    """The end of a process."""


def put(folder, name, text):
    (folder / name).mkdir(parents=True)
    (folder / name / "a").write_text(text)
    (folder / name / "b").write_text(text)


def whole(folder):
    """The texts of the folders under the names of steps; each file of one has the same."""
    found = {}
    for path in folder.iterdir():
        if path.name.isdecimal():
            texts = {part.read_text() for part in path.iterdir()}
            assert len(texts) == len(list(path.iterdir())) / 2 == 1, f"{path} is half removed"
            found[int(path.name)] = texts.pop()
    return found


@pytest.mark.parametrize("at", range(12))
def test_what_is_cut_short_is_finished(tmp_path, monkeypatch, at):
    """A step replaced, another removed, cut before each rename and each removal, and once more
    while that is mended: the steps are whole, and end as they should.
    """
    folder = tmp_path / "c"
    put(folder, "1", "first")
    put(folder, "2", "old")
    put(folder, "2.successor", "new")
    put(folder, "3.orbax-checkpoint-tmp", "half")
    put(folder, "2.removing", "older")
    (folder / "3.orbax-checkpoint-tmp" / "a").unlink()
    left = [at, at // 2]

    def cut_at(call):
        def counted(*args, **options):
            if left and left[0] == 0:
                left.pop(0)
                raise Cut
            if left:
                left[0] -= 1
            return call(*args, **options)

        return counted

    monkeypatch.setattr(os, "rename", cut_at(os.rename))
    monkeypatch.setattr(os, "unlink", cut_at(os.unlink))
    monkeypatch.setattr(os, "rmdir", cut_at(os.rmdir))
    cuts = 0
    for work in (step_folders.recover, step_folders.recover):
        try:
            work(folder)
            step_folders.remove(folder, 1)
        except Cut:
            cuts += 1
        assert step_folders.steps_in(folder) in ([1, 2], [2])
        there = step_folders.path_of(folder, 2)
        assert {part.read_text() for part in there.iterdir()} == {"new"}, "as recover leaves it"
        whole(folder)
    assert cuts, "nothing was cut"
    left.clear()
    step_folders.recover(folder)
    assert step_folders.steps_in(folder) in ([1, 2], [2])
    assert whole(folder)[2] == "new"
    assert not [path.name for path in folder.iterdir() if not path.name.isdecimal()]


def test_what_cannot_be_removed_is_said(tmp_path, monkeypatch, capsys):
    """As on NFS, where the files of a folder that somebody reads stay for a while."""
    put(tmp_path, "1", "first")

    def refused(path):
        raise OSError(39, "Directory not empty", str(path))

    with monkeypatch.context() as busy:
        busy.setattr(shutil, "rmtree", refused)
        step_folders.remove(tmp_path, 1)
    assert capsys.readouterr().err == (
        f"warning: {tmp_path / '1.removing'} could not be removed (Directory not empty); the next "
        "start tries again.\n"
    )
    assert step_folders.steps_in(tmp_path) == []
    step_folders.recover(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- a disk that is full
# --------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_checkpoints import made_state
from experiments.run.checkpoints import Checkpoints
from experiments.cli import UserError
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
try:
    with Checkpoints(folder, keep=3) as checkpoints:
        checkpoints.save(made_state(step=1)); checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        checkpoints.save(made_state(step=2))
except UserError as error:
    print(error)
"""


@pytest.mark.integration
@pytest.mark.parametrize("limit", [pytest.param(100, marks=pytest.mark.slow), 2500])
def test_a_save_that_the_disk_refuses_is_said_once(tmp_path, limit):
    """Files may not grow beyond a limit, as with a quota: by turns the first and a later write of a
    checkpoint fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "c", str(limit)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert f"the checkpoint of step 2 could not be written to {tmp_path / 'c'} (" in done.stdout
    assert "File too large" in done.stdout
    assert "that of step 1 is kept" in done.stdout
    assert done.stdout.count("\n") == 1
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        assert int(checkpoints.restore_latest(made_state()).step) == 1
        checkpoints.save(made_state(step=2))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"], (
        "what was half written is removed"
    )


class NoRoom:
    """The answer to a save that has failed in its thread."""

    def result(self, timeout=None):
        raise OSError(28, "No space left on device")


def test_a_save_that_fails_in_its_thread_is_said_at_the_next_look(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        checkpoints.save(made_state(step=1))
        checkpoints.wait()
        monkeypatch.setattr(f"{ORBAX}.save_async", lambda *args, **kwargs: NoRoom())
        checkpoints.save(made_state(step=2))
        with pytest.raises(
            UserError, match=r"step 2 could not .*No space left on device.*that of step 1 is kept"
        ):
            checkpoints.check()
        checkpoints.check()  # once


# --- the checksum
# -------------------------------------------------------------------------------------------------


def test_the_checksum_follows_every_bit():
    leaves = {
        "a": jnp.arange(12.0).reshape(3, 4),
        "b": jnp.zeros((), jnp.int32),
        "c": jnp.zeros((2, 0)),
        "d": jnp.array([True, False]),
    }
    want = checksum(leaves)
    assert want == checksum(dict(reversed(leaves.items())))
    assert want == checksum({name: np.asarray(leaf) for name, leaf in leaves.items()})
    rng = np.random.default_rng(0)
    seen = {want}
    for _ in range(100):
        numbers = np.array(leaves["a"])
        bits = numbers.view(np.uint32).reshape(-1)
        bits[rng.integers(12)] ^= np.uint32(1) << np.uint32(rng.integers(32))
        seen.add(checksum({**leaves, "a": jnp.asarray(numbers)}))
    assert len(seen) > 80  # of 384 bits, drawn 100 times
    assert want not in {
        checksum(
            {**leaves, "a": leaves["a"].at[jnp.array([0, 1])].set(leaves["a"][jnp.array([1, 0])])}
        )
    }
    for other in (
        {**leaves, "b": jnp.ones((), jnp.int32)},
        {**leaves, "b": jnp.zeros((), jnp.uint32)},
        {**leaves, "a": leaves["a"].reshape(4, 3)},
        {**leaves, "a": -leaves["a"].at[0, 0].set(0.0)},
        {**leaves, "d": ~leaves["d"]},
        {("A" if name == "a" else name): leaf for name, leaf in leaves.items()},
    ):
        assert checksum(other) not in seen


@pytest.mark.parametrize("dtype", ["float64", "int64", "bfloat16", "uint8", "float32"])
def test_the_checksum_knows_every_width(dtype, x64):
    leaf = jnp.arange(40).astype(dtype).reshape(5, 8)
    want = checksum({"x": leaf})
    assert want == checksum({"x": jnp.copy(leaf)})
    assert want != checksum({"x": leaf.at[4, 7].set(1)})
    # A golden number: checkpoints that people have hold it. If it changes, the CHANGELOG has to say
    # that they cannot be read.
    assert checksum({"x": jnp.arange(3, dtype=jnp.float32)})[:16] == "6cc8d7405b2585e5"


DEVICES = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from test_checkpoints import large_state
from experiments.run.checkpoints import Checkpoints
from experiments.run.saved import to_leaves
from experiments.run.checksum import checksum
axis_type = getattr(jax.sharding.AxisType, sys.argv[3])
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(axis_type,))
cut, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
state = large_state(step=5)
if jax.device_count() > 1:
    where = {name: cut if int(name[1]) % 2 else whole for name in state.params}
    params = {name: w.at[7, 7].set(0.5) for name, w in state.params.items()}
    params = {name: jax.device_put(w, where[name]) for name, w in params.items()}
    rest = state._replace(params=(), key=jax.random.key_data(state.key))
    state = jax.device_put(rest, whole)._replace(params=params)
    state = state._replace(key=jax.random.wrap_key_data(state.key))
with Checkpoints(Path(sys.argv[1]), keep=2) as checkpoints:
    if sys.argv[2] == "save":
        checkpoints.save(state)
    else:
        back = checkpoints.restore_latest(state)
        assert jax.tree.map(lambda a: a.sharding, back) == jax.tree.map(lambda a: a.sharding, state)
        state = back
w3, w4 = (np.asarray(state.params[name]) for name in ("w3", "w4"))
print(checksum(to_leaves(state)), w3[7, 7], w4.sum())
"""


def on_devices(number, *args):
    flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={number}"
    command = [sys.executable, "-c", DEVICES, *map(str, args)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment(), "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("axes", ["Auto", pytest.param("Explicit", marks=pytest.mark.slow)])
def test_a_checkpoint_is_the_same_on_any_number_of_devices(tmp_path, axes):
    """Saved from arrays cut over 4 devices, restored on 1 and on 2, each to where its own state
    lies.
    """
    saved = on_devices(4, tmp_path / "c", "save", axes)
    assert on_devices(1, tmp_path / "c", "restore", axes) == saved
    assert on_devices(2, tmp_path / "c", "restore", axes) == saved
    assert saved.split()[1] == "0.5"
