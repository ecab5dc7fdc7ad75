"""Data that are read ahead, in a thread, while the command still imports JAX: the same data, the
same sentences, and no thread that is left.
"""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from command_helpers import made

from configs import table
from experiments import data
from experiments.cli import UserError
from experiments.data import DataError, delimited, filled, small
from experiments.data.ahead import Abandoned, Ahead, go_on, say
from experiments.run import session

pytest_plugins = ["command_helpers"]


@pytest.fixture
def file(tmp_path):
    """A csv of numbers, yes or no, and missing values, without texts."""
    rng = np.random.default_rng(0)
    rows = ["height,smokes,dose"]
    for i in range(200):
        smokes = "" if i % 7 == 0 else ("true", "false")[i % 2]
        dose = "NA" if i % 9 == 0 else f"{rng.normal():.17g}"
        rows.append(f"{rng.normal(170, 9):.3f},{smokes},{dose}")
    path = tmp_path / "people.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def spec_of(file):
    return made(table, data__name=f"csv:{file}").data


def waiting(began):
    """Work that never ends by itself."""
    began.set()
    while True:
        go_on()
        time.sleep(0.001)


def num_ahead():
    return sum(thread.name == "ahead" for thread in threading.enumerate())


def test_what_is_read_ahead_is_what_is_read(file):
    expected = data.load(spec_of(file))
    with data.load_ahead(spec_of(file)) as ahead:
        found = session.load_data(made(table, data__name=f"csv:{file}"), ahead)
        assert ahead.result() is found, "the same each time"
    assert num_ahead() == 0
    assert found.fingerprint == expected.fingerprint
    assert found.report == expected.report
    for split in ("train", "validation", "test"):
        for name, values in getattr(expected, split).x.items():
            np.testing.assert_array_equal(getattr(found, split).x[name], values)


def test_numbers_and_bools_of_a_csv_are_those_of_its_lines(file):
    source = delimited.open_source(str(file), ".", data.options.read(spec_of(file)))
    found = source.read("all").x.by_row[:]
    number = {"": np.nan, "NA": np.nan, "true": 1.0, "false": 0.0}
    lines = [line.split(",") for line in file.read_text().splitlines()[1:]]
    expected = [[number[cell] if cell in number else float(cell) for cell in row] for row in lines]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["digits", "npz:{}/rows.npz", "images:{}", "own.py:rows"])
def test_other_sources_are_read_where_they_are_asked_for(name, tmp_path, monkeypatch):
    """Those that are not small."""
    monkeypatch.setattr(small, "NUM_BYTES", 10)
    (tmp_path / "rows.npz").write_bytes(b"more than that")
    spec = table.get_config().data
    spec.name = name.format(tmp_path)
    with data.load_ahead(spec) as ahead:
        assert ahead is None
        assert num_ahead() == 0


@pytest.mark.parametrize("name", ["npz:{}/no.npz", "csv:{}/no.csv", "images:{}", "h5:{}/no.h5:x"])
def test_what_is_small_is_refused_before_anything_slow(name, tmp_path):
    """A file that is not there, a folder without images."""
    config = made(table, data__name=name.format(tmp_path))
    with data.load_ahead(config.data) as ahead, pytest.raises(DataError):
        ahead.settle()


def test_a_command_waits_no_longer_than_its_patience():
    began = threading.Event()
    with Ahead(lambda: waiting(began), patience=0.01) as ahead:
        assert began.wait(30)
        ahead.settle()
        ahead.settle()
    assert num_ahead() == 0


def test_folders_of_many_files_are_not_small(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"1234")
    assert small.is_small(f"images:{tmp_path}", "")
    monkeypatch.setattr(small, "NUM_FILES", 2)
    assert not small.is_small(f"images:{tmp_path}", "")
    assert not small.is_small("digits", "")


def test_what_is_wrong_with_a_file_is_said_where_it_is_asked_for(tmp_path):
    config = made(table, data__name=f"csv:{tmp_path / 'absent.csv'}")
    with pytest.raises(DataError) as expected:
        data.load(config.data)
    with data.load_ahead(config.data) as ahead:
        for _ in range(2):
            with pytest.raises(UserError) as found:
                session.load_data(config, ahead)
            assert str(found.value) == str(expected.value)


def test_notes_are_printed_once_and_not_before_the_result_is_asked_for(capsys):
    with Ahead(lambda: say("a note")) as ahead:
        ahead._thread.join()
        assert capsys.readouterr().err == ""
        ahead.result()
        ahead.result()
    assert capsys.readouterr().err == "a note\n"


def test_work_that_nobody_waits_for_ends_without_a_word(capsys):
    began = threading.Event()
    ahead = Ahead(lambda: waiting(began))

    def refused():
        with ahead:
            assert began.wait(30)
            raise UserError("another run is in the folder")

    with pytest.raises(UserError, match="another run"):
        refused()
    assert num_ahead() == 0
    with pytest.raises(Abandoned):
        ahead.result()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["_parse", "scan"])
def test_reading_ends_soon_where_nobody_waits(file, monkeypatch, place):
    """Between two parts of the file, and between two blocks of its rows."""
    module = {"_parse": delimited, "scan": filled}[place]
    original = getattr(module, place)
    began = threading.Event()
    left = threading.Event()
    calls = []

    def slow(*args, **options):
        calls.append(place)
        began.set()
        assert left.wait(30)
        return original(*args, **options)

    monkeypatch.setattr(module, place, slow)
    monkeypatch.setattr(delimited, "PART_BYTES", 1000)
    with data.load_ahead(spec_of(file)) as ahead:
        assert began.wait(30)
        ahead._is_abandoned.set()
        left.set()
    assert len(calls) == 1
    with pytest.raises(Abandoned):
        ahead.result()


def test_other_threads_go_on():
    go_on()
    with Ahead(lambda: waiting(threading.Event())):
        go_on()


def test_reading_needs_no_jax():
    code = "import sys; from experiments import data; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_of_others_is_refused_before_the_data_are_told_of(commands, tmp_path):
    """The order of what can be wrong is what it was."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("a letter")
    file = tmp_path / "numbers.csv"
    file.write_text("1,2\n3,x\n")
    flags = ["--config=configs/table.py", f"--config.data.name=csv:{file}", f"--workdir={folder}"]
    done = commands("train", *flags)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error:")
    assert str(folder) in line
