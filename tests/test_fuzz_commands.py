"""Mutated command lines, configs, run folders, npz and image files, given to the commands: each
ends in a sentence or goes on to its computation, within a minute, and touches nothing elsewhere.

The commands run in this process, up to their first long computation, so that thousands of cases
take minutes; some run as processes, whole. `pytest -m slow` tries 10,000, `pytest -m integration`
a hundred and ninety.
"""

import contextlib
import functools
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import hypothesis
import jax
import numpy as np
import pytest
from absl import flags
from command_helpers import ROOT, as_flags
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_fuzz import BAIT, FIELDS, MARKER, VALUES, damages

import vi_jax as vi
from experiments import build, cli, config_file, errors, evals, overrides, rooms
from experiments import settings as config_settings
from experiments.evals import encoding
from experiments.run import environment, folder, lock, loop, nonfinite, session, single
from experiments.run.contents import CONFIG
from experiments.run.record import from_plain, to_plain
from vi_jax import files

pytest_plugins = ("command_helpers",)

COMMANDS = ("train", "evaluate", "sample", "encode", "impute", "replay", "posterior")
SECONDS = 60  # that a case may take
TINY = dict(
    model__network__hidden=(4,),
    model__num_latents=2,
    train__batch_size=4,
    train__num_steps=4,
    train__log_every=2,
    train__eval_every=4,
    train__checkpoint_every=2,
)
# cases of each kind: as an integration test, and in a part of the slow one
KINDS = {"command lines": (25, 400), "configs": (60, 200), "run folders": (20, 200)}
KINDS |= {"npz files": (15, 100), "image files": (15, 100)}
PARTS = 10
IN_PROCESSES = 12  # cases of each kind that run whole


class Reached(BaseException):
    """A command has got as far as its first long computation."""


class TooLong(BaseException):
    """A command has taken more than SECONDS."""


class Case(NamedTuple):
    """A command, its arguments, and what is done to the working folder before it runs."""

    name: str
    args: list[str]
    changes: tuple = ()  # of functions of the working folder
    needs: tuple[str, ...] = ()  # what of the templates lies there; () for all

    def prepare(self, sandbox):
        """Makes the working folder of this case."""
        sandbox.reset(self.needs)
        for change in self.changes:
            change(sandbox)


class Sandbox:
    """A folder to run commands in, templates of what they read, and a canary beside it.

    base/canary is elsewhere: links of a case lead there, and nothing may change in it.
    base/templates has a finished run with a kept step, arrays and images.
    base/home is the user's, base/work the working folder, made anew for each case.
    """

    def __init__(self, base):
        self.base = base
        self.canary = base / "canary"
        self.templates = base / "templates"
        self.home = base / "home"
        self.work = base / "work"

    def reset(self, needs=()):
        """A working folder as a case finds it."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for name in needs or [path.name for path in self.templates.iterdir()]:
            copy = shutil.copytree if (self.templates / name).is_dir() else shutil.copy2
            copy(self.templates / name, self.work / name)

    def elsewhere(self):
        """All that is outside the working folder, by path: kinds, contents, times."""
        found = {}
        for place in (self.canary, self.templates, self.home):
            for path in sorted(place.rglob("*")):
                status = path.lstat()
                content = path.read_bytes() if files.kind(path) == files.REGULAR else b""
                found[path.relative_to(self.base)] = (status.st_mode, status.st_mtime_ns, content)
        found |= {path: "" for path in self.base.iterdir() if path != self.work}
        return found


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory):
    base = tmp_path_factory.mktemp("sandbox")
    found = Sandbox(base)
    (found.canary / "folder").mkdir(parents=True)
    (found.canary / "file.txt").write_text("a canary\n")
    (found.canary / "folder" / "config.json").write_text("{}\n")
    found.home.mkdir()
    config = config_file.load("configs/vae.py", overrides.split(as_flags(**TINY))[1])
    with jax.debug_key_reuse(False):
        folder.open_folder(found.templates / "run", config, overwrite=False)
        with lock.locked(found.templates / "run"):
            single.train(config, found.templates / "run", resumed=False)
        built = session.build_all(config)
        state = session.start_state(config, built.model)
    moment = nonfinite._moment(state, built)
    nonfinite.write(found.templates / "run" / "nonfinite" / "step_0.npz", moment)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    arrays = {"x_train": images, "y_train": np.arange(40) % 3}
    arrays |= {"x_test": images[:9], "y_test": np.arange(9) % 3}
    np.savez(found.templates / "mine.npz", **arrays)
    np.savez(found.templates / "model.npz", x=rng.standard_normal(5), num=np.int64(3))
    for split, count in (("train", 6), ("test", 3)):
        (found.templates / "images" / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(images[i]).save(found.templates / "images" / split / f"{i}.png")
    (found.templates / "own.py").write_text(OWN)
    return found


OWN = """import numpyro
import numpyro.distributions as dist

def model(x, num=2):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([num]).to_event(1))
    numpyro.sample("x", dist.Normal(mu.sum(), 1.0), obs=x)
"""
OF_FILES = [*as_flags(**TINY), "--workdir=new"]
OF_FILES += ["--config.data.train=train", "--config.data.validation=", "--config.data.test=test"]
BASE = {
    "train": [*as_flags(**TINY), "--workdir=run"],
    "evaluate": ["--workdir=run", "--num_samples=4"],
    "sample": ["--workdir=run", "--num=4"],
    "encode": ["--workdir=run", "--scores", "--num_samples=4"],
    "impute": ["--workdir=run", "--num_samples=25"],
    "replay": ["--workdir=run"],
    "posterior": [
        "--config=configs/posterior/file.py:own.py:model",
        "--config.data=model.npz",
        "--workdir=fit",
    ],
    "npz": [*OF_FILES, "--config.data.name=npz:mine.npz"],
    "images": [*OF_FILES, "--config.data.name=images:images"],
}


@pytest.fixture
def call(sandbox, monkeypatch):
    """call(name, args) runs a command in the sandbox; returns its code (None: it got as far as its
    computation) and what it said.
    """
    make_meter = evals.make_meter

    def reached(*args, **options):
        raise Reached

    def meter(*args):
        return make_meter(*args)._replace(measure=reached)

    # 1. where a long computation begins
    monkeypatch.setattr(loop, "blocks", reached)
    monkeypatch.setattr(evals, "make_meter", meter)
    monkeypatch.setattr(encoding, "make_moments", lambda *args: reached)
    monkeypatch.setattr(vi, "fit", reached, raising=False)
    # 2. files of ours that stand for the user's own
    monkeypatch.setattr(errors, "OURS", (*errors.OURS, ROOT / "tests"))
    # 3. what takes time and is the same in all cases
    monkeypatch.setattr(session, "start_state", once(session.start_state, _of_a_start))
    monkeypatch.setattr(build, "prepare", once(build.prepare, _of_a_preparation))
    monkeypatch.setattr(environment, "_version", functools.cache(environment._version))
    monkeypatch.setattr(environment, "_commit", functools.cache(environment._commit))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # another process would try them
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(sandbox.home))

    def run(name, args):
        with monkeypatch.context() as patch, jax.debug_key_reuse(False):
            if name == "replay":
                patch.setattr(build, "step", reached)
            patch.setattr(sys, "argv", [name, "--compilation_cache=off", *args])
            patch.chdir(sandbox.work)
            return finished(name)

    return run


def once(function, of):
    """A function that computes its answer once for all arguments that `of` says the same of."""
    known = {}

    def remembered(*args):
        key = of(*args)
        if key not in known:
            known[key] = function(*args)
        return known[key]

    return remembered


def _of_a_start(config, model, layout=None):
    shapes = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    return json.dumps(to_plain(config)), str(shapes), layout


def _of_a_preparation(config, units):
    return config.data.binarisation, units


def finished(name):
    """(code, stderr) of a command whose arguments are in sys.argv; raises what would be a
    traceback.
    """
    module = importlib.import_module(f"experiments.{name}")
    known = set(flags.FLAGS)
    x64 = jax.config.jax_enable_x64
    said = io.StringIO()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli.run(module.main, module.__doc__, module.define_flags)
    except SystemExit as ended:
        return ended.code, said.getvalue()
    except Reached:
        return None, said.getvalue()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        jax.config.update("jax_enable_x64", x64)
        for own in [name for name in sys.modules if name.startswith("_own_")]:
            del sys.modules[own]  # the next case has another file by this name
        for flag in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, flag)
        flags.FLAGS.unparse_flags()
        for flag in known:
            flags.FLAGS[flag].unparse()


def _too_long(number, frame):
    raise TooLong(f"a command took more than {SECONDS} s")


def differences(before, after):
    """The paths that are new, gone or changed."""
    paths = sorted({*before, *after}, key=str)
    return [str(path) for path in paths if before.get(path) != after.get(path)]


def judge(sandbox, elsewhere, code, said):
    """Holds a case to its law."""
    assert code in (None, 0, 1, 2, cli.REQUEUE), f"it ended with {code}: {said}"
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if code == 2:
        assert len(errors) == 1, said
        assert said.splitlines()[-1] == errors[0], f"a sentence of several lines: {said}"
        assert len(errors[0]) > 20, said
    else:
        assert not errors, said
    assert not MARKER.exists(), "something that was read has been executed"
    touched = differences(elsewhere, sandbox.elsewhere())
    assert not touched, f"touched elsewhere: {touched}"


def fuzz(number, seed, kind, sandbox, run):
    """Tries so many cases of a kind and returns their codes; all that failed are said at the end.

    Args:
      run: (name, args) -> code and stderr of a command in the working folder.
    """
    elsewhere = sandbox.elsewhere()
    codes = []
    failures = {}

    def attempt(case):
        case.prepare(sandbox)
        began = time.monotonic()
        try:
            code, said = run(case.name, case.args)
            codes.append(code)
            judge(sandbox, elsewhere, code, said)
        except (Exception, TooLong) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind_of_failure = (type(error), place.filename, place.lineno)
            lines = traceback.format_exception(error)
            seconds = time.monotonic() - began
            failures.setdefault(kind_of_failure, f"{case}\nafter {seconds:.1f} s\n{''.join(lines)}")

    quick = settings(
        max_examples=number,
        suppress_health_check=list(HealthCheck),
        derandomize=False,
        deadline=None,
        database=None,
        phases=[Phase.generate],
    )
    hypothesis.seed(seed)(quick(given(case=STRATEGIES[kind])(attempt)))()
    assert not failures, f"{len(failures)} kinds of failure:\n" + "\n".join(failures.values())
    return codes


# --- what is mutated


PLACES = ["run", "not-there", "new", "../canary", "../canary/file.txt", "", ".", "own.py", "images"]
TEXTS = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), max_size=8)
FLAGS = {
    "train": ("overwrite", "num_processes", "process_id", "allow_code"),
    "evaluate": ("split", "checkpoint", "num_samples", "chunk", "batch_size", "seed", "allow_code"),
    "sample": ("checkpoint", "num", "seed", "allow_code"),
    "encode": ("split", "checkpoint", "num_samples", "chunk", "batch_size", "seed", "scores"),
    "impute": ("split", "checkpoint", "num_samples", "num_draws", "num_hidden", "seed"),
    "replay": ("step", "allow_code"),
    "posterior": ("overwrite",),
}
OF_PLACES = {
    "train": ("workdir", "config", "config.data.data_dir", "config.data.name"),
    "evaluate": ("workdir", "data_dir"),
    "sample": ("workdir", "data_dir", "out"),
    "encode": ("workdir", "data_dir", "out"),
    "impute": ("workdir", "data_dir", "out"),
    "replay": ("workdir",),
    "posterior": ("workdir", "config", "config.data", "config.data_dir", "config.model"),
}
CONFIGS = (
    *("configs/vae.py", "configs/vae.py:conv", "configs/vae.py:nope", "configs/replay.py:run"),
    *("configs/posterior/eight_schools.py", "configs/posterior/file.py:own.py:model", "own.py"),
    *("configs/replay.py:../canary/folder", "configs/replay.py", "configs", "npz:mine.npz"),
    *("images:images", "npz:../canary/file.txt", "file:own.py:model", "file:own.py:nothing"),
)


def flag_of(name):
    """One more flag of a command, of any value."""
    values = st.one_of(VALUES.filter(lambda text: "/" not in text), TEXTS)
    of_fields = st.builds(lambda field, text: f"--config.{field}={text}", st.sampled_from(FIELDS),
                          values)  # fmt: skip
    of_flags = st.builds(
        lambda flag, text: f"--{flag}={text}", st.sampled_from(FLAGS[name]), values
    )
    of_places = st.builds(
        lambda flag, text: f"--{flag}={text}",
        st.sampled_from(OF_PLACES[name]),
        st.sampled_from([*PLACES, *CONFIGS]),
    )
    odd = st.sampled_from(
        ["--", "-", "--config", "--config.", "--config.=", "--workdir", "--flagfile=own.py", "-h",
         "--flagfile=", "--undefok=x", "--noconfig.seed", "--no", "x", "--overwrite=perhaps",
         "--help=x", "--config.seed", "--config.model", "--config.model.name", BAIT]
    )  # fmt: skip
    return st.one_of(of_fields, of_flags, of_flags, of_places, odd, TEXTS)


@st.composite
def command_lines(draw):
    """A command with arguments of its own that were dropped, doubled, reordered and added to."""
    name = draw(st.sampled_from(COMMANDS))
    args = list(BASE[name])
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.sampled_from(["add", "add", "add", "drop", "double", "cut", "shuffle"]))
        if what == "add" or not args:
            args.insert(draw(st.integers(0, len(args))), draw(flag_of(name)))
        elif what == "drop":
            args.pop(draw(st.integers(0, len(args) - 1)))
        elif what == "double":
            args.append(args[draw(st.integers(0, len(args) - 1))])
        elif what == "cut":
            at = draw(st.integers(0, len(args) - 1))
            args[at] = args[at][: draw(st.integers(0, len(args[at])))]
        else:
            args = draw(st.permutations(args))
    return Case(name, args)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=4),
    st.just(BAIT),
)
CONTENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
)
LIKELY = st.sampled_from(
    [0, 1, 2, 7, -1, 0.1, 1.5, 1e9, True, False, None, "", "test", "elbo", "iwae", "none", "adam",
     "gaussian", "real_nvp", "mlp", (), (1,), (3, 2), [4], {"name": "mlp"}, {"name": "constant"}]
)  # fmt: skip
EXPRESSIONS = st.sampled_from(
    ["config", "len", "{1, 2}", "object()", "1j", "float('nan')", "[config]", "lambda: 3", "int",
     "range(3)", "1 / 0", "nothing", "__import__('numpy').zeros(3)", "exit(1)", "b'x'", "(", "..."]
)  # fmt: skip
SETTER = "from configs.vae import get_config as base\n\n\ndef get_config(variant=''):\n"
SETTER += "    config = base()\n    config.update_from_flattened_dict({tiny!r})\n"
SETTER += "    config.unlock()\n    config{group}[{name!r}] = {value}\n    return config\n"


@st.composite
def configs(draw):
    """A config file that sets a field to anything, or a record that holds anything."""
    value = draw(st.one_of(LIKELY, CONTENTS))
    groups = ["train", "model", "data", "eval", "optim", "objective", "extra", "code", "format"]
    field = draw(st.sampled_from([*FIELDS, *groups]))
    if draw(st.booleans()):
        text = draw(st.one_of(EXPRESSIONS, LIKELY.map(repr), st.just(repr(value)), TEXTS))
        tiny = {name.replace("__", "."): changed for name, changed in TINY.items()}
        *groups, last = field.split(".")
        group = "".join(f"[{each!r}]" for each in groups)
        source = SETTER.format(group=group, name=last, value=text, tiny=tiny)
        write = functools.partial(write_config, source)
        return Case("train", ["--config=mine.py", "--workdir=new"], (write,), ("own.py",))
    name = draw(st.sampled_from(["train", "evaluate", "sample", "encode", "replay"]))
    damage = draw(st.one_of(st.none(), damages()))
    args = BASE[name]
    if name == "train" and draw(st.booleans()):
        args = ["--config=configs/replay.py:run", "--workdir=new"]
    return Case(name, args, (functools.partial(set_field, field, value, damage),), ("run",))


def write_config(source, sandbox):
    """Writes a config file."""
    (sandbox.work / "mine.py").write_text(source, errors="replace")


def set_field(field, value, damage, sandbox):
    """Sets a field of a run's record to a value, if JSON has it, and damages the record, if that is
    not None.
    """
    path = sandbox.work / "run" / CONFIG
    plain = json.loads(path.read_text())
    *groups, last = field.split(".")
    place = plain
    for group in groups:
        place = place[group]
    with contextlib.suppress(TypeError, ValueError):  # bytes have no JSON
        json.dumps(value)
        place[last] = value
    content = json.dumps(plain).encode()
    path.write_bytes(content if damage is None else damage(content))


def entries():
    """What a run folder of the template holds, and what it may hold."""
    return st.sampled_from(
        [*("config.json", "data.json", "environment.json", "metrics.jsonl", "timing.jsonl"),
         *("summary.json", "lock", "figures", "figures/samples.png", "checkpoints", "tensorboard"),
         *("checkpoints/2", "checkpoints/4", "checkpoints/4/later.json", "nonfinite", "samples"),
         *("nonfinite/step_0.npz", "samples/samples.npz", "evaluation-test.json", "stopped.json"),
         *("checkpoints/4/state", "checkpoints/4/state/manifest.ocdbt", "checkpoints/4/block"),
         *("checkpoints/9", "checkpoints/4.successor", "checkpoints/x", "replicas.json", "x y")]
    )  # fmt: skip


def put(kind, path, sandbox):
    """Puts something of a kind in the place of an entry."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        (path / "inner").mkdir(parents=True)
    elif kind == "file":
        path.write_bytes(b"")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "hard link":
        os.link(sandbox.canary / "file.txt", path)
    elif kind.startswith("link to "):
        path.symlink_to(sandbox.canary / kind.removeprefix("link to "))


THINGS = ("nothing", "folder", "file", "pipe", "loop", "link to file.txt", "link to folder")
THINGS += ("link to not-there",)


@st.composite
def run_folders(draw):
    """A run folder some of whose entries are gone, damaged or something else."""
    name = draw(st.sampled_from(["train", "train", "evaluate", "sample", "encode", "replay"]))
    kinds = st.sampled_from([*THINGS, "hard link", "damaged"])
    changes = draw(st.lists(st.tuples(entries(), kinds, damages()), min_size=1, max_size=3))

    more = draw(st.sampled_from([[], [], ["--overwrite"]])) if name == "train" else []
    partials = tuple(functools.partial(change_entry, *change) for change in changes)
    return Case(name, [*BASE[name], *more], partials, ("run",))


def change_entry(entry, kind, damage, sandbox):
    """Damages an entry of the run folder, or puts something of a kind in its place."""
    path = sandbox.work / "run" / entry
    # RuntimeError: what pathlib makes of a loop up to Python 3.12
    with contextlib.suppress(OSError, RuntimeError):  # below a link or a file that was put there
        if sandbox.work not in path.parent.resolve().parents:
            return  # not a case: it would change the canary by itself
        if kind != "damaged":
            put(kind, path, sandbox)
        elif path.is_dir() and not path.is_symlink():
            for each in sorted(path.rglob("*"))[:3]:
                damage_file(damage, each)
        else:
            damage_file(damage, path)


def damage_file(damage, path):
    """Damages a file, unless it is something else, or known elsewhere by another name."""
    if files.kind(path) == files.REGULAR and path.lstat().st_nlink == 1:
        path.write_bytes(damage(path.read_bytes()))


ARRAYS = st.one_of(
    st.tuples(
        st.sampled_from(["u1", "i8", "f4", "f8", "?", "U3", "O", "c8", "M8[s]", "V4", "f2"]),
        st.lists(st.sampled_from([0, 1, 2, 3, 6]), max_size=4),
    ),
    st.none(),
)
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test", "x", "y", "train", "num", "other")


@st.composite
def npz_files(draw):
    """Arrays for a training or a posterior: damaged, or of any types and shapes."""
    name = draw(st.sampled_from(["train", "posterior"]))
    file = "mine.npz" if name == "train" else "model.npz"
    made = draw(st.one_of(st.none(), st.dictionaries(st.sampled_from(ARRAY_NAMES), ARRAYS,
                                                     max_size=4)))  # fmt: skip
    damage = draw(damages())
    is_damaged = draw(st.booleans())
    change = functools.partial(change_arrays, file, made, damage if is_damaged else None)
    return Case(name, BASE["npz" if name == "train" else name], (change,), (file, "own.py"))


def change_arrays(file, made, damage, sandbox):
    """Replaces the arrays of a file by zeros of other types and shapes, and damages it."""
    path = sandbox.work / file
    if made is not None:
        with np.load(path) as found:
            arrays = dict(found)
        for key, spec in made.items():
            arrays.pop(key, None)
            if spec is not None:
                arrays[key] = np.zeros(spec[1], spec[0])
        np.savez(path, **arrays)
    if damage is not None:
        path.write_bytes(damage(path.read_bytes()))


@st.composite
def image_files(draw):
    """A folder of images: damaged, of other sizes, modes and names, links and pipes."""
    ops = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["damage", "size", "mode", "name", *THINGS]),
                st.sampled_from(["train/0.png", "train/3.png", "test/1.png", "train", "test"]),
                damages(),
                st.integers(1, 9),
                st.sampled_from(["L", "RGB", "RGBA", "P", "1", "I", "F", "LA", "CMYK"]),
                TEXTS,
            ),
            min_size=1,
            max_size=3,
        )
    )
    changes = tuple(functools.partial(change_image, *op) for op in ops)
    return Case("train", BASE["images"], changes, ("images",))


def change_image(what, entry, damage, size, mode, text, sandbox):
    """Damages, replaces or renames an image or a folder of images."""
    path = sandbox.work / "images" / entry
    # what cannot be made is no case; RuntimeError: as above
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if sandbox.work not in path.parent.resolve().parents:
            return
        if what in THINGS:
            put(what, path, sandbox)
        elif what == "name":
            path.rename(path.with_name(text + path.suffix))
        elif what == "damage":
            damage_file(damage, path)
        elif files.kind(path) in ("", files.REGULAR):
            shape = (size, 6) if what == "size" else (6, 6)
            Image.new("L" if what == "size" else mode, shape).save(path)


STRATEGIES = {
    "command lines": command_lines(),
    "configs": configs(),
    "run folders": run_folders(),
    "npz files": npz_files(),
    "image files": image_files(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "part",
    [
        pytest.param("few", marks=pytest.mark.integration),
        *(pytest.param(part, marks=pytest.mark.slow) for part in range(PARTS)),
    ],
)
def test_mutated(kind, part, sandbox, call):
    few, many = KINDS[kind]
    is_few = part == "few"
    number = few if is_few else many
    codes = fuzz(number, 0 if is_few else 1 + part, kind, sandbox, call)
    assert len(codes) >= number
    assert None in codes, "no case got as far as its computation: the law has hardly been tried"
    assert set(codes) != {None}, "every case was accepted"


def test_ten_thousand_are_tried():
    assert PARTS * sum(many for _, many in KINDS.values()) >= 10_000


@pytest.mark.parametrize("base", BASE)
@pytest.mark.integration
def test_the_cases_start_from_what_works(base, sandbox, call):
    """Each command with its own arguments gets as far as its computation; impute to its end."""
    name = "train" if base in ("npz", "images") else base
    sandbox.reset()
    code, said = call(name, BASE[base])
    assert code == (0 if name == "impute" else None), said


FOUND = {
    f"{name}: a record whose {group} is {value!r}": Case(
        name, BASE[name], (functools.partial(set_field, group, value, None),), ("run",)
    )
    for name in ("evaluate", "sample")
    for group, value in (("data", {}), ("data", "x"), ("eval", None), ("mesh", [1]))
}
FOUND |= {
    f"{name}: a record of num_latents {value!r}": Case(
        name,
        BASE[name],
        (functools.partial(set_field, "model.num_latents", value, None),),
        ("run",),
    )
    for name in ("evaluate", "sample", "replay")
    for value in (1.5, True)
}
FOUND["posterior: a number of the model that is an array"] = Case(
    "posterior",
    BASE["posterior"],
    (functools.partial(change_arrays, "model.npz", {"num": ("i8", [2, 0])}, None),),
    ("model.npz", "own.py"),
)
OWN_NETWORK = ["--config=configs/vae.py", "--config.model.network=mine.py:network", "--workdir=new"]
NETWORKS = {
    "fails where it is made": "return 1 / 0",
    "fails where it is called": "return SimpleNamespace(encoder=lambda *args: args[0].nothing)",
    "is no network": "return len",
}
for what, line in NETWORKS.items():
    source = f"from types import SimpleNamespace\n\ndef network():\n    {line}\n"
    FOUND[f"train: a network of the user's own that {what}"] = Case(
        "train", OWN_NETWORK, (functools.partial(write_config, source),), ("own.py",)
    )


@pytest.mark.integration
@pytest.mark.parametrize("what", FOUND)
def test_what_ended_in_a_traceback_once_ends_in_a_sentence(what, sandbox, call):
    FOUND[what].prepare(sandbox)
    elsewhere = sandbox.elsewhere()
    code, said = call(FOUND[what].name, FOUND[what].args)
    assert code == 2
    judge(sandbox, elsewhere, code, said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero."),
        ("raise KeyError", "KeyError."),
        ("raise AttributeError('two\\nlines.')", "AttributeError: two lines."),
    ],
)
def test_an_error_in_code_of_the_users_own_names_its_line(line, said, tmp_path, monkeypatch):
    """Called by code of ours, that is; what is only ours is a fault of ours."""
    (tmp_path / "own.py").write_text(f"def network():\n    {line}\n")
    with pytest.raises((ArithmeticError, LookupError, AttributeError)) as caught:
        rooms.ROOMS.build(rooms.NETWORK, f"{tmp_path}/own.py:network", where="here", facts={})
    assert errors.in_own_code(caught.value) == f"{tmp_path / 'own.py'}, line 2: {said}"
    with pytest.raises(TypeError) as caught:
        len(3)
    assert errors.in_own_code(caught.value) is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_latents", 1.5, "num_latents is 1.5; vae takes a whole number for it."),
        ("num_latents", True, "num_latents is True; vae takes a whole number for it."),
        ("hidden", 4, "hidden is 4; vae takes a tuple of whole numbers for it."),
        ("hidden", ("x",), "hidden is ('x',); vae takes a tuple of whole numbers for it."),
        ("hidden", (4, 2), None),
    ],
)
def test_sizes_in_a_choice_are_whole_numbers(field, value, said):
    choice = {"name": "vae", "num_latents": 2, field: value}
    if said is None:
        rooms.ROOMS.check(rooms.MODEL, choice, where="config.model", facts=["x_shape"])
        return
    with pytest.raises(cli.UserError) as caught:
        rooms.ROOMS.check(rooms.MODEL, choice, where="config.model", facts=["x_shape"])
    assert str(caught.value) == f"config.model.{said}"


def test_a_field_of_a_group_that_a_config_lacks_is_not_set():
    for plain in ({"data": {}}, {"data": "x"}, {}):
        with pytest.raises(cli.UserError, match=r"no field data\.data_dir"):
            config_settings.change(from_plain(plain), {"data.data_dir": "here"})
    config = from_plain({"data": {"data_dir": ""}})
    config_settings.change(config, {"data.data_dir": "here"})
    assert config.data.data_dir == "here"
    assert config.is_locked


@pytest.mark.slow  # starts processes, which run to their end
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_in_processes(kind, sandbox, commands):
    """The same, whole: nothing is cut short."""

    def run(name, args):
        if any("\0" in arg for arg in args):
            return 2, "error: no process can be given this."
        variables = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            commands.argv(name, *args), cwd=sandbox.work, env=variables, capture_output=True,
            text=True, errors="replace", timeout=5 * SECONDS, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    fuzz(IN_PROCESSES, 77, kind, sandbox, run)


def test_a_case_that_writes_elsewhere_is_seen(tmp_path):
    """The law can fail."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "templates").mkdir()
    (tmp_path / "home").mkdir()
    found = Sandbox(tmp_path)
    (tmp_path / "canary" / "file").write_text("a")
    before = found.elsewhere()
    judge(found, before, 0, "")
    (tmp_path / "canary" / "file").write_text("b")
    with pytest.raises(AssertionError, match=r"touched elsewhere: .*file"):
        judge(found, before, 0, "")
    for code, said in (
        (1, "Traceback (most recent call last)"),
        (2, "error: of no command that\nis on one line"),
        (2, ""),
        (0, "error: but the code is that of success."),
        (-9, ""),
    ):
        with pytest.raises(AssertionError):
            judge(found, found.elsewhere(), code, said)
    assert Path(MARKER).parent == Path(__file__).parent
