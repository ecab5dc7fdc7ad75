"""Folders that are not one's own: nothing in one is run, led through, waited for or lost."""

import ast
import contextlib
import copy
import fnmatch
import json
import os
import pickle
import re
import shutil
import socket
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
from command_helpers import OLD_RECORD, as_flags, small, write_idx
from helpers import tree_equal
from PIL import Image
from test_checkpoints import made_state, plain_key
from test_data_tfds import prepare_tiny

from configs import replay as replay_config
from experiments import config_file, data, figures, settings
from experiments.cli import UserError
from experiments.evals import report
from experiments.posteriors import config as posterior_config
from experiments.posteriors import models as posterior_models
from experiments.run import lock, metrics, nonfinite, session, single
from experiments.run.checkpoints import Checkpoints
from experiments.run.contents import CONFIG, CONTENTS, DATA, check_contents
from experiments.run.folder import default_folder, open_folder, refuse_foreign
from experiments.run.record import FORMAT, read_config, read_run, to_plain
from vi_jax import files

pytest_plugins = ("command_helpers",)

NOT_REGULAR = ("folder", "link", "dangling link", "loop", "pipe", "socket", "device")


def put(kind, path, elsewhere):
    """Something at a path; a link leads to `elsewhere`, a file that has to stay as it is."""
    if kind == "folder":
        path.mkdir()
        (path / "inside").write_text("theirs")
    elif kind == "file":
        path.write_text("theirs")
    elif kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "dangling link":
        path.symlink_to(elsewhere.with_name("not-there"))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.chdir(path.parent)  # the path of a socket is at most 107 bytes long
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif kind == "device":
        if os.geteuid():
            pytest.skip("only root makes devices")
        os.mknod(path, 0o020600, os.makedev(1, 3))  # that of /dev/null


@pytest.fixture
def elsewhere(tmp_path_factory):
    """A file outside the folder, which nothing may change."""
    path = tmp_path_factory.mktemp("elsewhere") / "precious"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"
    assert not path.with_name("not-there").exists()
    assert os.stat(path).st_nlink <= 2


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A path with nothing at it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "place"


OPENERS = {
    "open_regular": files.open_regular,
    "read_bytes": files.read_bytes,
    "read_text": files.read_text,
    "read_npz": lambda path: files.read_npz(path).__enter__(),
    "open_to_append": files.open_to_append,
    "write_bytes": lambda path: files.write_bytes(path, b"ours"),
    "write_text": lambda path: files.write_text(path, "ours"),
    "write_json": lambda path: files.write_json(path, {}),
    "write_npz": lambda path: files.write_npz(path, {"x": np.zeros(2)}),
}


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("opener", OPENERS)
def test_what_is_no_regular_file_is_refused(opener, kind, place, elsewhere):
    put(kind, place, elsewhere)
    with pytest.raises(files.NotRegular, match=f"{place} is a .*regular file was expected$"):
        OPENERS[opener](place)
    assert [path.name for path in place.parent.iterdir()] == [place.name]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_a_users_link_leads_to_is_a_regular_file_too(kind, place, elsewhere):
    put(kind, place, elsewhere)
    place.with_name("link").symlink_to(place)
    with pytest.raises(files.NotRegular):
        files.read_bytes(place.with_name("link"), follow=True)
    place.with_name("good").symlink_to(elsewhere)
    assert files.read_text(place.with_name("good"), follow=True) == "precious"


def test_the_open_file_is_what_is_checked(place, monkeypatch):
    """A pipe that comes after the first look, with a writer or without."""
    os.mkfifo(place)
    regular = os.stat(__file__)
    monkeypatch.setattr(os, "stat", lambda *args, **options: regular)
    for opener in OPENERS.values():
        with pytest.raises(OSError, match=r"named pipe|No such device or address"):
            opener(place)
    writer = threading.Thread(target=lambda: place.open("wb").close(), daemon=True)
    writer.start()
    with pytest.raises(files.NotRegular):
        files.read_bytes(place)
    # lets the writer go, wherever it is: it may have been let go already, and not wait for a reader
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(timeout=10)
    os.close(reader)
    assert not writer.is_alive()


def test_a_file_of_two_names_is_replaced_and_not_appended_to(place, elsewhere):
    os.link(elsewhere, place)
    with pytest.raises(files.NotRegular, match="hard link"):
        files.open_to_append(place)
    files.write_text(place, "ours")
    assert place.read_text() == "ours"


def test_what_is_appended_stays(place):
    for word in ("one", "two"):
        with files.open_to_append(place) as file:
            file.write(word)
    assert place.read_text() == "onetwo"


def test_a_failed_write_leaves_what_was_there(place):
    place.write_text("before")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as failed:
        files.write_whole(place, fail)
    assert failed.value.filename == str(place)  # which a write does not know
    assert place.read_text() == "before"
    assert list(place.parent.iterdir()) == [place]


def test_what_a_killed_process_left_is_no_hindrance(place, elsewhere):
    place.with_name(f".place.{os.getpid()}.partial").symlink_to(elsewhere)
    files.write_text(place, "ours")
    assert place.read_text() == "ours"
    assert list(place.parent.iterdir()) == [place]


def test_an_npz_is_of_plain_arrays(place):
    with pytest.raises(ValueError, match="Python objects"):
        files.write_npz(place, {"x": np.array([object()])})
    files.write_npz(place, {"site/x": np.arange(3), "key": np.ones(2)}, compressed=True)
    with files.read_npz(place) as found:
        assert found["site/x"].tolist() == [0, 1, 2]
    np.savez(place.open("wb"), x=np.array([{}], object))
    with files.read_npz(place) as found, pytest.raises(ValueError, match="allow_pickle"):
        found["x"]


@pytest.mark.parametrize("kind", sorted(set(NOT_REGULAR) - {"folder"}))
@pytest.mark.parametrize("depth", ["", "3", "3/state/d"])
def test_a_tree_of_regular_files(kind, depth, tmp_path, elsewhere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    top = tmp_path / "checkpoints"
    files.require_regular_tree(top)
    (top / "3/state/d").mkdir(parents=True)
    (top / "3/state/manifest").write_text("good")
    files.require_regular_tree(top)
    put(kind, top / depth / "bad", elsewhere)
    with pytest.raises(files.NotRegular, match=r"/bad is a .*, where a regular file was expected"):
        files.require_regular_tree(top)


def test_a_link_is_no_tree(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(files.NotRegular, match="symbolic link, where a folder was expected"):
        files.require_regular_tree(tmp_path / "link")
    with pytest.raises(files.NotRegular, match="symbolic link, where a folder was expected"):
        files.make_folder(tmp_path / "link")
    files.make_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


# --- one home


# Methods of any object, functions of NumPy, functions by themselves, whole calls.
METHODS = {
    *("open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "touch"),
    *("savefig", "print_png", "imsave", "tofile", "symlink_to", "hardlink_to"),
    *("import_module", "exec_module"),
}
OF_NUMPY = {
    *("save", "savez", "savez_compressed", "savetxt"),
    *("load", "loadtxt", "genfromtxt", "fromfile", "memmap"),
}
BARE = {"open", "eval", "exec", "__import__"}
WHOLE = {"os.replace", "os.rename", "os.mkfifo"}
EXECUTING = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code"}
# What has no path of a user's, or of a folder's, in it: file -> the whole call.
ALLOWED = {
    "experiments/choices.py": {"importlib.import_module", "spec.loader.exec_module"},  # the user's
    "experiments/cli.py": {"Path('/proc/cpuinfo').read_text"},
    "experiments/data/base.py": {"importlib.import_module"},  # of a name in our code
    "experiments/data/features.py": {"Image.open"},  # of bytes
    "experiments/data/photo.py": {"Image.open"},  # of an open file
    "experiments/data/stored.py": {"opened.open"},  # of a member of an open file
    "experiments/evals/spool.py": {"opened.open"},  # the same
    "experiments/run/memory.py": {"path.read_text"},  # of the kernel's files
    "experiments/posteriors/own.py": {"spec.loader.exec_module"},  # the user's own model
    "experiments/startup.py": {"os.open"},  # of the null device
    "experiments/run/step_folders.py": {"os.open"},  # of a folder, to sync it
    "experiments/run/storage.py": {
        "ts.KvStore.open",
        "ts.open",
    },  # of a tree that was looked at
}
ROOT = Path(__file__).parents[1]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for folder in ("experiments", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def strays(path, source):
    """The calls that open files, or run what they hold, and the imports for it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            of, _, name = whole.rpartition(".")
            is_one = name in METHODS if of else name in BARE
            is_one |= of in ("np", "numpy") and name in OF_NUMPY
            if (is_one or whole in WHOLE) and of != "files" and whole not in ALLOWED.get(path, ()):
                found.append(f"{path}: line {node.lineno} calls {whole}; see vi_jax/files")
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [f"{path} imports {each}" for each in names if each in EXECUTING]
    return found


@pytest.mark.parametrize("path", SOURCES)
def test_files_are_opened_in_one_place(path):
    assert not strays(path, SOURCES[path])


@pytest.mark.parametrize(
    "source",
    [
        "open('x', 'w')",
        "path.open()",
        "Path(x).write_text('')",
        "np.savez(path, x=1)",
        "np.load(path)",
        "fig.savefig(path)",
        "def f():\n    import pickle",
        "from joblib import load",
        "os.replace(a, b)",
        "with zipped.open() as file: pass",
    ],
)
def test_a_stray_is_seen(source):
    assert strays("experiments/new.py", source)
    assert not strays("experiments/new.py", "files.write_text(path, x)")


# --- what a run folder holds


RUN_FILES = (
    *("config.json", "environment.json", "data.json", "lock", "metrics.jsonl", "timing.jsonl"),
    *("summary.json", "evaluation-test.json", "stopped.json", "replicas.json", "result.json"),
    *("moments.json", "history.json", "draws.npz", "figures/learning_curves.png"),
    *("samples/samples.npz", "samples/samples.png", "nonfinite/step_3.npz"),
    "tensorboard/events.out.tfevents.1.host.0.1",
)
RUN_FOLDERS = ("checkpoints", "figures", "nonfinite", "samples", "tensorboard", "replica_0")
WRONG = [(name, kind) for name in RUN_FILES for kind in NOT_REGULAR]
WRONG += [(name, kind) for name in RUN_FOLDERS for kind in ("file", *NOT_REGULAR[1:])]


def make_run_folder(folder, **changes):
    """A run folder as a run that has just begun leaves it."""
    config = small(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / CONFIG, {"format": FORMAT, **to_plain(config)})
    files.write_json(folder / DATA, {"name": "digits", "source": "", "fingerprint": "x"})
    (folder / "metrics.jsonl").write_text('{"step": 10}\n')
    return config


@pytest.mark.parametrize("form", [None, 1, 3, "2", [2]])
def test_a_record_of_another_version_is_refused_in_one_sentence(form, tmp_path):
    """By what train, evaluate, sample and replay read it with, and by configs/replay.py."""
    config = make_run_folder(tmp_path)
    record = OLD_RECORD if form is None else {"format": form, **to_plain(config)}
    files.write_json(tmp_path / CONFIG, record)
    before = snapshot(tmp_path)
    said = "before configs named functions" if form is None else f"of format {form!r}"
    readers = (
        lambda: open_folder(tmp_path, config, overwrite=False),
        lambda: read_run(tmp_path, []),
        lambda: replay_config.get_config(str(tmp_path)),
    )
    for read in readers:
        with pytest.raises((UserError, ValueError)) as caught:  # a config file's own is the second
            read()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith("or train again with --overwrite.")
    assert snapshot(tmp_path) == before


def snapshot(folder):
    """Everything in a folder: its kind, and the content of files."""
    return {
        path.relative_to(folder).as_posix(): (
            files.kind(path),
            path.read_bytes() if files.kind(path) == files.REGULAR else b"",
        )
        for path in folder.rglob("*")
    }


def assert_sentence(said):
    """One line that ends as a sentence does."""
    text = str(said)
    assert "Traceback" not in text
    assert "\n" not in text.strip(), text
    assert text.strip().endswith((".", "?", "folder.")), text


@pytest.mark.parametrize(("name", "kind"), WRONG)
def test_something_else_in_the_place_of_what_a_run_holds(
    name, kind, tmp_path, elsewhere, monkeypatch
):
    """Refused in a sentence by those who write and those who read, and nothing is touched."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    config = make_run_folder(folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    put(kind, path, elsewhere)
    before = snapshot(folder)
    for use in (
        lambda: open_folder(folder, config, overwrite=False),
        lambda: read_config(folder),
    ):
        with pytest.raises(UserError, match=f"{path} is a .* was expected; remove it") as caught:
            use()
        assert_sentence(caught.value)
    assert snapshot(folder) == before


@pytest.mark.integration
def test_the_table_is_of_what_a_run_leaves(tmp_path):
    """What a whole run leaves is what it may find."""
    config = small(train__num_steps=4, train__eval_every=4, train__checkpoint_every=4)
    with jax.debug_key_reuse(False):
        open_folder(tmp_path, config, overwrite=False)
        with lock.locked(tmp_path):
            single.train(config, tmp_path, resumed=False)
        report.evaluate(config, tmp_path, num_samples=2, most=2, seed=0)
    check_contents(tmp_path, writes=True)
    top = set(CONTENTS[""])
    for path in tmp_path.iterdir():
        assert any(fnmatch.fnmatch(path.name, like) for like in top), f"{path.name} is in no table"
        for inner in path.iterdir() if path.name in CONTENTS else ():
            patterns = CONTENTS[path.name]
            assert any(fnmatch.fnmatch(inner.name, like) for like in patterns), inner


def test_overwriting_takes_links_away_and_not_what_they_lead_to(tmp_path, elsewhere):
    config = make_run_folder(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    for name in ("metrics.jsonl", "figures", "checkpoints", "environment.json"):
        (tmp_path / "run" / name).symlink_to(elsewhere if "." in name else elsewhere.parent)
    assert not open_folder(tmp_path / "run", config, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "environment.json",
    ]


@pytest.mark.parametrize("kind", [*NOT_REGULAR, "hard link"])
def test_something_else_in_the_place_of_the_lock(kind, tmp_path, elsewhere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if kind == "hard link":
        os.link(elsewhere, tmp_path / "lock")
    else:
        put(kind, tmp_path / "lock", elsewhere)
    with (
        pytest.raises(UserError, match=r"lock is a .*; remove it\.$"),
        lock.locked(tmp_path),
    ):
        pytest.fail("it was locked")


@pytest.mark.parametrize("kind", ["file", *NOT_REGULAR[2:]])
def test_a_folder_that_is_none(kind, place, elsewhere):
    put(kind, place, elsewhere)
    with pytest.raises(UserError, match=r"--workdir=.*place (is a|cannot be used)") as caught:
        refuse_foreign(place)
    assert_sentence(caught.value)


def test_a_users_own_link_to_a_run_folder_is_followed(tmp_path):
    config = make_run_folder(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert open_folder(tmp_path / "link", config, overwrite=False)
    assert read_config(tmp_path / "link").name == config.name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
@pytest.mark.parametrize("name", ["config.json", "data.json", "metrics.jsonl", "checkpoints", ""])
def test_what_may_not_be_read_is_said(name):
    with tempfile.TemporaryDirectory() as root:  # pytest's own is of its user alone
        os.chmod(root, 0o755)
        folder = Path(root) / "run"
        config = make_run_folder(folder)
        (folder / "metrics.jsonl").touch()
        (folder / "checkpoints").mkdir()
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534, 65534)
        (folder / name).chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match="Permission denied") as caught:
                open_folder(folder, config, overwrite=False)
            assert_sentence(caught.value)
            with pytest.raises(UserError, match=r"Permission denied|there is no folder"):
                read_config(folder)
        finally:
            os.seteuid(0)


# --- names of folders


SERVED = (
    *("a%20b", "100%", "a#b", "a b", " a", "a ", "ä", "日本", "a\nb", "a\tb", "a\x01b"),
    *("a'b", 'a"b', "a:b", "a|b", "{a}", "{SPLIT}", "$HOME", "~", "-a", "a&b=c", "a;b", "a,b"),
    *("a@b", "a\rb", "0", "checkpoints", "\u202e", "x.orbax-checkpoint-tmp"),
    *("x.orbax-checkpoint-tmp-1", "x" * 255, "é" * 127),
)
REFUSED = ("a?b", "a*b", "**", "[ab]", "a\\b", "gs:", "s3:", "file:", "\udcff", "a\udce9b")


def printable(name):
    return ascii(name)[:20]


@pytest.mark.cases(
    rest="slow",
    integration=[
        "'a%20b'",
        "'a#b'",
        "'a b'",
        "'\\\\u65e5\\\\u672c'",
        "'a\\\\nb'",
        "'{SPLIT}'",
        "'~'",
        "'-a'",
        "'checkpoints'",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize("name", SERVED, ids=printable)
def test_a_folder_of_any_name_holds_a_run(name, tmp_path, capsys):
    """Saved, gone on with and read; the numbers are what they were, in this process and again."""
    folder = tmp_path / name
    config = small()
    with lock.locked(folder):
        assert not open_folder(folder, config, overwrite=False)
        for resumed_at in (0, 3):
            log = metrics.MetricsLog(folder, from_step=resumed_at)
            with Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
                found = checkpoints.restore_latest(made_state(seed=1, step=0))
                assert (0 if found is None else int(found.step)) == resumed_at
                checkpoints.save(made_state(step=resumed_at + 3))
            log.write({"step": resumed_at + 3, "x": 1.0})
            log.close()
        assert open_folder(folder, config, overwrite=False)
    assert read_config(folder).name == config.name
    with Checkpoints(folder / "checkpoints", keep=2, read_only=True) as checkpoints:
        last = checkpoints.restore("latest", made_state(seed=1, step=0))
    assert tree_equal(plain_key(last), plain_key(made_state(step=6)))
    assert [row["step"] for row in metrics.read_rows(folder / metrics.METRICS)] == [3, 6]
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [*REFUSED, "a\x1b[31mb", "x" * 256], ids=printable)
def test_a_name_that_cannot_be_served_is_refused_at_the_start(name, tmp_path):
    with pytest.raises(UserError, match=r"cannot (hold checkpoints|be used)") as caught:
        refuse_foreign(tmp_path / name)
    assert_sentence(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_too_long_for_what_lies_in_it(tmp_path):
    deep = tmp_path.joinpath(*["x" * 200] * 18)
    with pytest.raises(UserError, match="over 3,500 bytes long"):
        refuse_foreign(deep)


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "a\nb", "a\0b", "\udcff"], ids=printable)
def test_a_name_in_a_config_is_that_of_a_folder_in_runs(name):
    config = small()
    with config.unlocked():
        config.name = name
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        default_folder(config)


# --- nothing of a folder is run


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module within reach of Python that leaves a marker when it is imported, and its names."""
    marker = tmp_path / "marker"
    folder = tmp_path / "theirs"
    folder.mkdir()
    source = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    source += "".join(f"def {name}(*args, **options):\n    pass\n" for name in ("trap", "é"))
    for name in ("trap.py", "a:trap.py", "a\ntrap.py"):
        (folder / name).write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(tmp_path)  # in which the folder is a namespace package
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # hundreds of small files
    file = folder / "trap.py"
    odd = [f"{folder}/a:trap.py:trap", f"{folder}/a\ntrap.py:trap", f"{file}:é", f"npz:{file}:trap"]
    yield [f"{file}:trap", f"file:{file}:trap", "trap.trap", "trap:trap", "theirs.trap:trap", *odd]
    assert not marker.exists()
    assert not {name for name in sys.modules if re.search("^theirs|^trap|^_own_.*trap", name)}


RECORD = {"format": FORMAT, "code": {}} | to_plain(config_file.set_fields(small(), []))
FIELDS = sorted(set(settings.flatten(RECORD)) - {"format"})


@pytest.mark.parametrize("field", [*FIELDS, "model", "model.prior", "optim", "more.name"])
def test_no_field_of_a_config_runs_code(field, trap, tmp_path):
    """A config.json is refused, or used as far as to a model; what it names is never imported."""
    folder = tmp_path / "run"
    make_run_folder(folder)
    for value in (*trap, {"name": trap[0]}, {"a": trap[0]}, [trap[0]]):
        plain = copy.deepcopy(RECORD)
        *parents, last = field.split(".")
        part = plain
        for parent in parents:
            part[parent] = part[parent] if isinstance(part.get(parent), dict) else {}
            part = part[parent]
        part[last] = value
        files.write_json(folder / CONFIG, plain)
        with contextlib.suppress(UserError), jax.debug_key_reuse(False):
            config = read_run(folder, [])
            settings.validate(config)
            dataset = session.load_data(config)
            jax.eval_shape(
                lambda config=config, dataset=dataset: session.start_state(
                    config, session.make_model(config, dataset)
                )
            )


@pytest.mark.parametrize("field", [*sorted(posterior_config.FIELDS), "more"])
def test_no_field_of_a_record_runs_code(field, trap, tmp_path):
    """That of a posterior, repeated: the file that it names is named by the user, or not run."""
    for name in trap:
        plain = {
            **{"name": "x", "seed": 0, "model": "diabetes", "data": "", "data_dir": ""},
            **{"method": "default", "num_starts": 1, "combine": "best", "num_draws": 25},
            "float64": False,
        }
        files.write_json(tmp_path / "config.json", plain | {field: name})
        config = replay_config.get_config(str(tmp_path))
        with contextlib.suppress(UserError):
            posterior_config.validate(config)
            posterior_models.get_model(config.model, config.data_dir, config.data)
            assert field not in ("model", "method", "combine", "data")
        if field == "model" and name.startswith("file:"):
            with pytest.raises(UserError, match=r"a record runs no code.*--config\.model=file:"):
                posterior_config.validate(config)


class Bait:
    """What unpickles to a marker."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["pickle", "npy", "npz", "npz of a pickle"])
@pytest.mark.parametrize("use", ["data", "a step that was not finite", "a posterior's data"])
def test_nothing_is_unpickled(form, use, tmp_path):
    marker = tmp_path / "marker"
    bait = np.array([Bait(marker)], object)
    path = tmp_path / "nonfinite" / "step_1.npz"
    path.parent.mkdir()
    with path.open("wb") as file:
        if form == "pickle":
            pickle.dump(Bait(marker), file)
        elif form == "npy":
            np.save(file, bait)
        elif form == "npz":
            np.savez(file, images=bait, batch=bait, num_levels=bait, x=bait)
        else:
            with zipfile.ZipFile(file, "w") as archive:
                for name in ("images", "batch", "num_levels", "x"):
                    archive.writestr(f"{name}.npy", pickle.dumps(Bait(marker)))
    own = tmp_path / "own.py"
    own.write_text("def model(x):\n    pass\n")
    changes = {"data__name": f"npz:{path}", "data__train": "all[:1]", "data__test": "all"}
    uses = {
        "data": lambda: data.load(small(**changes).data),
        "a step that was not finite": lambda: nonfinite.read_batch(path, with_labels=False),
        "a posterior's data": lambda: posterior_models.get_model(
            f"file:{own}:model", "", str(path)
        ),
    }
    with pytest.raises(UserError) as caught:
        uses[use]()
    assert_sentence(caught.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bait(marker)))
    assert marker.exists(), "the bait is none"


def strings(value, path=()):
    """Where the strings of a JSON value are."""
    if isinstance(value, str):
        yield path
    parts = enumerate(value) if isinstance(value, list) else getattr(value, "items", list)()
    for key, part in parts:
        yield from strings(part, (*path, key))


@pytest.mark.integration
def test_the_metadata_of_a_checkpoint_import_nothing(trap, tmp_path, capfd):
    """Orbax writes the names of its own classes; any other name in their place is a name."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(made_state(step=3))
    tried = 0
    for file in sorted(path for path in (folder / "3").rglob("*") if path.is_file()):
        whole = file.read_bytes()
        if not whole.startswith(b"{"):
            continue
        places = list(strings(json.loads(whole)))
        for place in places[:: max(1, len(places) // 2)]:
            changed = json.loads(whole)
            part = changed
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = trap[0]
            file.write_text(json.dumps(changed))
            with (
                contextlib.suppress(UserError),
                Checkpoints(folder, keep=2, read_only=True) as checkpoints,
            ):
                checkpoints.restore_latest(made_state(seed=1, step=0))
            tried += 1
        file.write_bytes(whole)
    assert tried > 6
    with Checkpoints(folder, keep=2, read_only=True) as checkpoints:
        assert checkpoints.restore_latest(made_state(seed=1, step=0)) is not None


@pytest.mark.integration
def test_a_pipe_in_the_place_of_any_file_of_a_checkpoint(tmp_path, capfd):
    """Neither opening nor restoring waits for it: the checkpoint is named and passed over."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(made_state(step=step))
    paths = sorted(path for path in (folder / "2").rglob("*") if path.is_file())
    assert len(paths) > 5
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with Checkpoints(folder, keep=3, keep_best=True, read_only=True) as checkpoints:
            state = checkpoints.restore_latest(made_state(seed=1, step=0))
        assert int(state.step) == 1, path
        assert f"{folder / '2'} is damaged" in capfd.readouterr().err
        path.unlink()
        path.write_bytes(content)


def test_figures_do_not_follow_a_style_of_a_folder(tmp_path):
    """matplotlib reads the matplotlibrc of the folder that a command is run in; `text.usetex` runs
    LaTeX.
    """
    rows = [{"step": step, "train/elbo": -1.0 / step} for step in (1, 2, 3)]
    plain = figures.learning_curves(tmp_path / "a.png", rows, title="x").read_bytes()
    theirs = {"text.usetex": True, "figure.facecolor": "red", "axes.facecolor": "red"}
    with matplotlib.rc_context(theirs):
        again = figures.learning_curves(tmp_path / "b.png", rows, title="x").read_bytes()
    assert again == plain


# --- data


def make_data(name, folder):
    """A data set in a folder, as `config.data` and the files that it is read from."""
    images = np.random.default_rng(0).integers(2, 256, (9, 5, 4), dtype=np.uint8)
    if name == "idx":
        write_idx(folder)
        return {"data__name": "mnist", "data__data_dir": str(folder)}
    if name == "npz":
        np.savez(folder / "mine.npz", x_train=images, x_test=images)
        return {"data__name": f"npz:{folder}/mine.npz"}
    if name == "images":
        for split in ("train", "test"):
            (folder / split).mkdir()
            for i in range(3):
                Image.fromarray(images[i]).save(folder / split / f"{i}.png")
        return {"data__name": f"images:{folder}"}
    if name == "binarized_mnist":
        for stem in ("train", "valid", "test"):
            (folder / f"binarized_mnist_{stem}.amat").write_text("0 1\n")
        return {"data__name": name, "data__data_dir": str(folder)}
    prepare_tiny(folder, images)
    return {"data__name": "tfds:tiny", "data__data_dir": str(folder)}


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("name", ["idx", "npz", "images", "binarized_mnist", "tfds"])
def test_something_else_in_the_place_of_data(name, kind, tmp_path, elsewhere, monkeypatch):
    """Each file in turn; a user's own links are followed, but not to something else."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    splits = {"data__train": "train", "data__validation": "", "data__test": "test"}
    config = small(**splits, data__binarisation="none", **make_data(name, folder))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if "valid" in path.name or (name, kind) == ("images", "folder"):
            continue  # which nothing reads here; which is a class
        content = path.read_bytes()
        path.unlink()
        put(kind, path, elsewhere)
        with pytest.raises(data.DataError) as caught:
            data.load(config.data)
        assert_sentence(caught.value)
        shutil.rmtree(path) if kind == "folder" else path.unlink()
        path.write_bytes(content)
        whole = path.rename(tmp_path / "whole")
        path.symlink_to(whole)
        if name != "binarized_mnist":  # whose files are no data
            assert len(data.load(config.data).train.x)
        path.unlink()
        whole.rename(path)


@pytest.mark.parametrize("kind", NOT_REGULAR)
def test_something_else_in_the_place_of_a_record(kind, tmp_path, elsewhere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(kind, tmp_path / "config.json", elsewhere)
    with pytest.raises(ValueError, match=r"config\.json is no config|there is no file") as caught:
        replay_config.get_config(str(tmp_path))
    assert_sentence(str(caught.value) + ".")


# --- the commands


ODD = "a%20b#c d\n\té'\".orbax-checkpoint-tmp"


@pytest.mark.slow
def test_a_folder_of_an_odd_name_through_all_commands(commands, tmp_path):
    """Trained, gone on with, evaluated and sampled from."""
    folder = tmp_path / ODD
    flags = as_flags(**{"train.num_steps": 20})
    commands.ok("train", *flags, f"--workdir={folder}")
    again = commands.ok("train", *flags, f"--workdir={folder}")
    assert "is complete" in again.stderr
    assert "warning" not in again.stderr
    for name in ("evaluate", "sample"):
        done = commands.ok(name, f"--workdir={folder}")
        assert "step 20" in done.stdout
        assert "warning" not in done.stderr
    with np.load(folder / "samples" / "samples.npz") as found:
        assert found["samples"].shape == (64, 8, 8)


def test_the_features_of_a_strangers_data_run_nothing(commands, trap, tmp_path, monkeypatch):
    """Through the command, with their folder on Python's path, and class names inside of a text."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    changes = {"data__name": "tfds:tiny", "data__data_dir": str(tmp_path / "theirs")}
    splits = {"data__train": "train", "data__validation": "", "data__test": "test"}
    folder = tmp_path / "theirs" / "run"
    make_run_folder(folder, **changes, **splits, data__binarisation="none")
    (folder / "checkpoints" / "120").mkdir(parents=True)  # data are read for one that is there
    images = np.random.default_rng(0).integers(2, 256, (9, 5, 4), dtype=np.uint8)
    prepared = prepare_tiny(tmp_path / "theirs", images)
    inner = json.dumps({"image": {"type": "theirs.trap.Image", "content": {}}})
    features = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "jsonFeature": {"json": inner},
    }
    (prepared / "features.json").write_text(json.dumps(features))
    done = commands("evaluate", f"--workdir={folder}")
    assert done.returncode == 2, done.stderr
    assert "the feature 'image' is of the class 'theirs.trap.Image'" in done.stderr


CASES = [  # command, what is wrong in the folder, and how
    ("train", "metrics.jsonl", "pipe"),
    ("train", "lock", "dangling link"),
    ("train", "config.json", "pipe"),
    ("train", "tensorboard", "link"),
    ("train", "figures/samples.png", "folder"),
    ("replicas", "replica_1", "link"),
    ("evaluate", "config.json", "pipe"),
    ("evaluate", "checkpoints", "link"),
    ("evaluate", "evaluation-test.json", "link"),
    ("evaluate", "checkpoints/120/state/manifest.ocdbt", "pipe"),
    ("sample", "samples", "link"),
    ("sample", "samples/samples.npz", "link"),
    ("encode", "latents", "link"),
    ("encode", "latents/latents.csv", "pipe"),
    ("impute", "imputed/imputed.csv", "link"),
    ("replay", "nonfinite/step_1.npz", "pipe"),
    ("posterior", "draws.npz", "dangling link"),
]


@pytest.mark.cases(
    rest="slow",
    integration=[
        "train-metrics.jsonl-pipe",
        "train-lock-dangling link",
        "evaluate-config.json-pipe",
        "sample-samples-link",
        "encode-latents/latents.csv-pipe",
        "impute-imputed/imputed.csv-link",
        "posterior-draws.npz-dangling link",
        "replicas-replica_1-link",
    ],
)
@pytest.mark.parametrize(("command", "name", "kind"), CASES)
def test_the_commands_end_with_a_sentence(
    commands, trained, tmp_path, elsewhere, command, name, kind
):
    """Exit code 2 within seconds, and what the folder leads to is as it was."""
    folder = tmp_path / "run"
    if command in ("replicas", "posterior"):
        make_run_folder(folder)
        (folder / DATA).unlink()
    else:
        shutil.copytree(trained[0], folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    put(kind, path, elsewhere.parent if name in ("tensorboard", "checkpoints") else elsewhere)
    before = snapshot(elsewhere.parent)
    arguments = {
        "train": as_flags(),
        "replicas": as_flags(replicas=2),
        "posterior": ["--config=configs/posterior/eight_schools.py"],
        "evaluate": ["--checkpoint=120"],  # the newest one; another has no say
    }
    run = "train" if command == "replicas" else command
    done = commands(run, *arguments.get(command, []), f"--workdir={folder}", timeout=100)
    *_, last = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert last.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert path.name in last
    assert snapshot(elsewhere.parent) == before
