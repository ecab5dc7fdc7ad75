"""Folders that are not one's own: nothing in one is run, led through, waited for or lost."""

import os
import socket
import threading

import numpy as np
import pytest

from experiments import files

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
    monkeypatch.setattr(files.os, "stat", lambda *args, **options: regular)
    for opener in OPENERS.values():
        with pytest.raises(OSError, match=r"named pipe|No such device or address"):
            opener(place)
    writer = threading.Thread(target=lambda: place.open("wb").close(), daemon=True)
    writer.start()
    with pytest.raises(files.NotRegular):
        files.read_bytes(place)
    place.open("rb").close()  # lets the writer go
    writer.join(timeout=10)


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

    with pytest.raises(OSError, match="No space"):
        files.write_whole(place, fail)
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
