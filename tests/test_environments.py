"""Strange surroundings of a command: locales, environment variables, streams, folders and config
files work, or are refused in one sentence with exit code 2.
"""

import codecs
import contextlib
import io
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from absl import flags
from command_helpers import ROOT, as_flags, environment

from experiments import command_line, startup
from experiments.cli import UserError

pytest_plugins = ("command_helpers",)

TINY = dict(train__num_steps=4, train__log_every=2, train__eval_every=4, train__checkpoint_every=4)
POSTERIOR = (
    "--config=configs/posterior/eight_schools.py",
    "--config.method=laplace",
    "--config.num_draws=200",
)
COMMANDS = ("train", "evaluate", "sample", "replay", "posterior")
LIMITED = "import os, resource, sys; {}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


def run(command, changes=(), *, prelude="", cwd=ROOT, **streams):
    """A finished command in an environment of its own.

    Args:
      command: the arguments after `python`.
      changes: variables to set; None unsets one.
      prelude: a Python statement that runs in the process before the command takes its place.
      streams: arguments of `subprocess.Popen`.
    """
    variables = {**environment(), "PYTHONPATH": str(ROOT), **dict(changes)}
    variables = {name: value for name, value in variables.items() if value is not None}
    start = [sys.executable]
    if prelude:
        start += ["-S", "-c", LIMITED.format(prelude)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(
        [*start, *map(str, command)],
        cwd=cwd,
        env=variables,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=300,
        check=False,
        **streams,
    )


def refused(done, *words):
    """Holds a finished command to one sentence, and the sentence to these words."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last, last


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One folder of compiled programs for all commands of this file."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def runs(cache, tmp_path_factory):
    """Two finished runs, by name: a small one, and one that stopped at a step that was not
    finite.
    """
    base = tmp_path_factory.mktemp("runs")
    for name, more in (("good", {}), ("bad", {"optim__learning_rate__peak": 1e30})):
        argv = ["-m", "experiments.train", *as_flags(**TINY | more), f"--workdir={base / name}"]
        done = run([*argv, f"--compilation_cache={cache}"])
        assert done.returncode == (2 if more else 0), done.stderr
    return {name: base / name for name in ("good", "bad")}


def argv(command, runs, tmp_path, cache):
    """The arguments after `python` that run a command on a copy of a run, or anew."""
    if command == "train":
        args = [*as_flags(**TINY), f"--workdir={tmp_path / 'new'}"]
    elif command == "posterior":
        args = [*POSTERIOR, f"--workdir={tmp_path / 'new'}"]
    else:
        source = runs["bad" if command == "replay" else "good"]
        args = [f"--workdir={shutil.copytree(source, tmp_path / 'copy')}"]
        args += ["--num_samples=4"] * (command == "evaluate")
    return ["-m", f"experiments.{command}", *args, f"--compilation_cache={cache}"]


# --- what works

WORKS = {
    "an ASCII locale, and folders that are not there": dict(
        changes={
            "LC_ALL": "C",
            "LANG": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "MPLBACKEND": "nonsense",
            "TERM": "dumb",
            "COLUMNS": "0",
            "LINES": "-1",
            "TMPDIR": "/not/there",
            "HOME": None,
            "TFDS_DATA_DIR": "/dev/null",
        }
    ),
    "warnings are errors, caches that cannot be written": dict(
        changes={
            "PYTHONWARNINGS": "error",
            "PYTHONIOENCODING": "ascii",
            "XDG_CACHE_HOME": __file__,
            "HOME": "/proc/not-there",
            "MPLCONFIGDIR": "/proc/not-there",
        }
    ),
    "without docstrings and asserts, few files, a small stack": dict(
        changes={"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"},
        prelude="resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
        "resource.setrlimit(resource.RLIMIT_STACK, (2**20, 2**20))",
    ),
    "closed streams": dict(prelude="[os.close(number) for number in (0, 1, 2)]"),
}


@pytest.mark.slow  # minutes in all: each starts a process
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", WORKS)
def test_a_command_works(case, command, runs, cache, tmp_path):
    done = run(argv(command, runs, tmp_path, cache), **WORKS[case])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if case != "closed streams":
        assert done.stdout.strip()
        assert done.stdout.isascii() or "ASCII" not in case


@pytest.mark.slow  # minutes in all: each starts a process
@pytest.mark.parametrize("command", ["train", "posterior"])
def test_a_reader_that_leaves_does_not_end_a_run(command, runs, cache, tmp_path):
    """As `| head -1` does; the files of the folder are those of a run that was read to its end."""
    script = '"$@" 2>&1 | head -1'
    whole = argv(command, runs, tmp_path, cache)
    done = run(
        ["-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", "bash", "-c",
         f"set -o pipefail; {script}; exit $?", "bash", sys.executable, *whole]
    )  # fmt: skip
    assert len(done.stdout.splitlines()) <= 1
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"train": "summary.json", "posterior": "result.json"}[command] in names
    assert list((tmp_path / "new" / "figures").glob("*.png"))


@pytest.mark.slow  # minutes in all: each starts a process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_an_error_at_the_end(runs, cache, tmp_path):
    with open("/dev/full", "w") as full:
        done = run(argv("evaluate", runs, tmp_path, cache), stdout=full)
    refused(done, "No space left on device")
    assert (tmp_path / "copy" / "evaluation-test.json").exists()


# --- what is refused

REFUSED = {
    "a platform of no name": (
        dict(changes={"JAX_PLATFORMS": "nonsense"}),
        ["JAX_PLATFORMS=nonsense", "set JAX_PLATFORMS=cpu"],
    ),
    "a flag that XLA does not know": (
        dict(changes={"XLA_FLAGS": "--nonsense=1"}),
        ["XLA_FLAGS='--nonsense=1'", "Unknown flag", "unset XLA_FLAGS"],
    ),
    "a value that XLA does not know": (
        dict(changes={"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=perhaps"}),
        ["Couldn't interpret value perhaps"],
    ),
    "a file of XLA's flags that is not there": (
        dict(changes={"XLA_FLAGS": "not-there"}),
        ['Could not open file "not-there"'],
    ),
    "no devices": (
        dict(changes={"XLA_FLAGS": "--xla_force_host_platform_device_count=0"}),
        ["XLA_FLAGS="],
    ),
    "a setting of JAX's": (
        dict(changes={"JAX_ENABLE_X64": "perhaps"}),
        ["invalid truth value 'perhaps'", "JAX_ENABLE_X64"],
    ),
    "a working folder that is gone": (
        dict(prelude="import tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)"),
        ["the working folder cannot be used", "change to one that exists"],
    ),
}


@pytest.mark.slow  # minutes in all: each starts a process
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_command_refuses(case, command, runs, cache, tmp_path):
    how, words = REFUSED[case]
    refused(run(argv(command, runs, tmp_path, cache), **how), *words)


@pytest.mark.slow  # minutes in all: each starts a process
@pytest.mark.parametrize(
    ("how", "args", "words"),
    [
        ({}, ["--flagfile=not-there"], ["there is no flag file 'not-there'"]),
        (dict(changes={"JAX_NUM_PROCESSES": "two"}), [], ["JAX_NUM_PROCESSES is 'two'"]),
        (
            dict(changes={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
            ["--workdir=übung"],
            ["not text in this locale's encoding", "PYTHONUTF8=1"],
        ),
        ({}, ["--workdir=\udcff"], ["not text in this locale's encoding"]),
    ],
)
def test_train_refuses(how, args, words):
    refused(run(["-m", "experiments.train", *as_flags(**TINY), *args], **how), *words)


# --- config files

HEAD = """import helper
import ml_collections
from configs.vae import get_config as base

def get_config(*variant):
    config = base()
    config.model.network.hidden = helper.HIDDEN
    with config.unlocked():
        {}
    return config
"""
CONFIGS = {
    "config.extra = b'x'": "config.extra is b'x' of type bytes; a config holds numbers, text",
    "config.extra = {1, 2}": "config.extra is {1, 2} of type set",
    "config.extra = len": "config.extra is <built-in function len>",
    "config.extra = 1j": "config.extra is 1j of type complex",
    "config.extra = '\\udcff'": "text of Unicode",
    "config.extra = 10**5000": "config.extra is a number of 16,610 bits",
    "config.model.extra = dict(a=(b'x',))": "config.model.extra.a[0] is b'x'",
    "config.extra = config": "contains itself",
    "config.extra = []; config.extra.append(config.extra)": "contains itself",
    "import numpy; config.extra = numpy.zeros(2)": "config.extra is array([0., 0.]) of type",
    "import numpy; config.extra = numpy.float32(3)": "of type float32",
    "config.extra = ml_collections.ConfigDict({1: 2})": "has a field 1; names of fields are text",
    "config.extra = ml_collections.config_dict.required_placeholder(int)": "without a value",
    "1 / 0": "own.py, line 9: ZeroDivisionError: division by zero.",
    "unknown": "own.py, line 9: NameError: name 'unknown' is not defined.",
    "{}['a']": "own.py, line 9: KeyError: 'a'.",
    "int('x')": "own.py, line 9: ValueError: invalid literal",
    "1 + 'x'": "own.py, line 9: TypeError: unsupported operand",
    "open('not-there')": "own.py, line 9: FileNotFoundError: [Errno 2] No such file",
    "f = lambda: f(); f()": "own.py, line 9: RecursionError",
    "import not_there": "own.py, line 9: ModuleNotFoundError: No module named 'not_there'.",
    "raise ValueError('what is wrong.')": "what is wrong.",
    "(": "own.py, line 9: '(' was never closed.",
    "return None": "returned NoneType; it has to be a ConfigDict or a dictionary.",
}


def parsed(monkeypatch, *args):
    """The config that a command's own parser makes of a command line."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "", flag_values=values)
    fake = types.SimpleNamespace(FLAGS=values, Error=flags.Error)
    monkeypatch.setattr(command_line, "flags", fake)
    with contextlib.ExitStack() as stack:
        stack.callback(sys.modules.pop, "helper", None)
        command_line.parse(["train", *args])
    return values.config


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a helper module, and another one that the command runs in."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "helper.py").write_text("HIDDEN = (7,)\n")
    (tmp_path / "mine" / "json.py").write_text("raise ImportError('of no standard library')\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "helper.py").write_text("HIDDEN = (9,)\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # as `python -m` does
    return tmp_path / "mine"


def test_a_config_imports_the_module_beside_it(folder, monkeypatch):
    """Not the one of the working folder, and nothing in the place of a standard module."""
    (folder / "own.py").write_text("import json\n" + HEAD.format("pass"))
    monkeypatch.delitem(sys.modules, "json", raising=False)
    config = parsed(monkeypatch, f"--config={folder / 'own.py'}", "--config.seed=3")
    assert tuple(config.model.network.hidden) == (7,)
    assert config.seed == 3
    relative = os.path.relpath(folder / "own.py")
    assert tuple(parsed(monkeypatch, f"--config={relative}").model.network.hidden) == (7,)


@pytest.mark.parametrize("line", CONFIGS)
def test_a_config_that_cannot_be_meant_is_refused(line, folder, monkeypatch):
    (folder / "own.py").write_text(HEAD.format(line))
    with pytest.raises(UserError) as caught:
        parsed(monkeypatch, f"--config={folder / 'own.py'}")
    assert CONFIGS[line] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config="], "it has to be FILE.py or FILE.py:VARIANT"),
        (["--config"], "Missing value for flag --config"),
        (["--config=not-there.py"], "there is no config file not-there.py; there are configs/"),
        (["--config=configs"], "it has to be FILE.py or FILE.py:VARIANT"),
        (["--config=configs/vae.py:nope"], "has no variant 'nope'"),
        (["--config=configs/vae.py", "--config.modell=3"], "did you mean"),
        (["--config=configs/vae.py", "--config.seed.a=3"], "config.seed is 0 and has no field 'a'"),
        (["--config=configs/vae.py", "--config.seed=x"], "it has to be a whole number"),
        (["--seed=3"], "Unknown command line flag 'seed'"),
        (["x"], "unexpected argument 'x'"),
        (["--flagfile=not-there"], "there is no flag file 'not-there'"),
        (["--flagfile=/dev/null"], "there is no flag file '/dev/null'"),
        (["--flagfile"], "there is no flag file ''"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(args, words, monkeypatch):
    with pytest.raises(UserError) as caught:
        parsed(monkeypatch, *args)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flag_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "flags").write_text("--config=configs/vae.py\n--config.seed=4\n")
    assert parsed(monkeypatch, f"--flagfile={tmp_path / 'flags'}").seed == 4
    (tmp_path / "flags").write_bytes(b"\xff\xfe--config=\n")
    with pytest.raises(UserError, match="the flags cannot be read"):
        parsed(monkeypatch, f"--flagfile={tmp_path / 'flags'}")


def test_a_model_of_a_file_imports_the_module_beside_it(folder, monkeypatch):
    """When the file is loaded, and when the model is called."""
    from experiments.posteriors import models as posterior_models

    (folder / "late.py").write_text("NUMBER = 2\n")
    (folder / "own.py").write_text(
        "import helper\n\n\ndef model():\n    import late\n    return helper.HIDDEN, late.NUMBER\n"
    )
    model, _ = posterior_models.get_model(f"file:{folder / 'own.py'}:model", "")
    assert model() == ((7,), 2)
    for name in ("helper", "late"):
        monkeypatch.delitem(sys.modules, name)


# --- streams


def test_characters_that_an_encoding_lacks_are_spelled_in_ascii():
    codecs.register_error("vi_jax.ascii", startup.spell_in_ascii)
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii", errors="vi_jax.ascii")
    stream.write("-1.0 ± 0.1, 8 × 8, ü, \udcff\n")
    stream.flush()
    assert written.getvalue() == b"-1.0 +- 0.1, 8 x 8, \\xfc, \\udcff\n"


@pytest.mark.parametrize("number", [1, 2])
def test_output_that_nobody_reads_is_dropped(number):
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys; from experiments import startup; streams = startup.open_streams();"
        "print('x' * 100_000, flush=True); print('y' * 100_000, file=sys.stderr, flush=True);"
        "sys.exit(7 if streams.lost is None else 8)"
    )
    streams = {"stdout": writer} if number == 1 else {"stderr": writer}
    done = run(["-c", code], **streams)
    os.close(writer)
    assert done.returncode == 7
    assert done.stdout if number == 2 else done.stderr
