"""Checkpoints: what is saved comes back to the last bit, or is named as damaged; a save that fails
says so.
"""

import functools
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
from experiments import build, session
from experiments.checkpoints import Checkpoints
from experiments.checksum import checksum
from experiments.cli import UserError
from vi_jax.training import State


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
    with Checkpoints(folder, keep=2) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "load", lambda step, abstract: read.append(step))
        with pytest.raises(
            UserError,
            match=r"no checkpoint in .* can be read \(steps 1, 2\); start again with --overwrite",
        ):
            checkpoints.restore_latest(made_state())
    assert capsys.readouterr().err.count("warning: the checkpoint") == 2
    assert read == []


def test_a_checkpoint_of_another_model_is_no_checkpoint(saved, capsys):
    config = small(model__hidden=(5,))
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
        assert checkpoints._response is not None
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


# --- a disk that is full
# --------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_checkpoints import made_state
from experiments.checkpoints import Checkpoints
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

    _thread_runner = type("", (), {"done": staticmethod(lambda: True)})

    def result(self):
        raise OSError(28, "No space left on device")


def test_a_save_that_fails_in_its_thread_is_said_at_the_next_look(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        checkpoints.save(made_state(step=1))
        checkpoints.wait()
        monkeypatch.setattr(checkpoints._manager, "save_async", lambda *args, **kwargs: NoRoom())
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
from experiments.checkpoints import Checkpoints, to_leaves
from experiments.checksum import checksum
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


@pytest.mark.parametrize("axes", ["Auto", pytest.param("Explicit", marks=pytest.mark.slow)])
def test_a_checkpoint_is_the_same_on_any_number_of_devices(tmp_path, axes):
    """Saved from arrays cut over 4 devices, restored on 1 and on 2, each to where its own state
    lies.
    """
    saved = on_devices(4, tmp_path / "c", "save", axes)
    assert on_devices(1, tmp_path / "c", "restore", axes) == saved
    assert on_devices(2, tmp_path / "c", "restore", axes) == saved
    assert saved.split()[1] == "0.5"
