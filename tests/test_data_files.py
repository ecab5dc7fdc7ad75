"""experiments.data: IDX files and their fetching, the fixed binarisation of MNIST."""

import gzip
import hashlib
import http.server
import socket
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import data
from experiments.data import binarized, fetch, idx

RNG = np.random.default_rng(0)


def config(name, data_dir, **changes):
    values = dict(
        train="train",
        validation="",
        test="test",
        shuffle_seed=0,
        binarisation="none",
        static_seed=0,
    )
    return SimpleNamespace(name=name, data_dir=str(data_dir), **(values | changes))


def fails(match, *args, **changes):
    """Asserts that loading is a DataError of one line that matches, in under 5 s."""
    start = time.monotonic()
    with pytest.raises(data.DataError, match=match) as caught:
        data.load(config(*args, **changes))
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)


# --- IDX
# -------------------------------------------------------------------------------------------------


def as_idx(array):
    magic = {3: 2051, 1: 2049}[array.ndim]
    return np.array([magic, *array.shape], ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_set(folder, *, suffix=".gz", scale=0.5):
    """A small set in the four files; returns its arrays by file stem."""
    arrays = {}
    for stem, count in zip(("train", "t10k"), (20, 10), strict=True):
        arrays[f"{stem}-images-idx3-ubyte"] = (RNG.integers(0, 256, (count, 6, 5)) * scale).astype(
            np.uint8
        )
        arrays[f"{stem}-labels-idx1-ubyte"] = RNG.integers(0, 10, count, dtype=np.uint8)
    for stem, array in arrays.items():
        content = as_idx(array)
        (folder / f"{stem}{suffix}").write_bytes(
            gzip.compress(content) if suffix == ".gz" else content
        )
    return arrays


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_reads_what_was_written(tmp_path, name, suffix):
    arrays = write_set(tmp_path, suffix=suffix)
    got = data.load(config(name, tmp_path))
    np.testing.assert_array_equal(got.train.x, arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(got.test.labels, arrays["t10k-labels-idx1-ubyte"])
    assert (got.num_levels, got.train.x.dtype, got.source) == (256, np.uint8, str(tmp_path))


def test_idx_other_spellings(tmp_path):
    arrays = write_set(tmp_path, suffix="")
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    labels = tmp_path / "t10k-labels.idx1-ubyte"
    labels.rename(tmp_path / "t10k-labels-idx1-ubyte.gz")  # unpacked on the way, its name kept
    np.testing.assert_array_equal(
        data.load(config("mnist", tmp_path)).test.x, arrays["t10k-images-idx3-ubyte"]
    )


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("stem", "spoil", "match"),
    [
        (IMAGES, lambda raw: gzip.compress(raw)[:-30], "truncated gzip"),
        (IMAGES, lambda raw: gzip.compress(raw)[:12], "truncated gzip"),
        (IMAGES, lambda raw: b"\x1f\x8b" + raw, "truncated gzip"),
        (IMAGES, lambda raw: raw[:4][::-1] + raw[4:], "starts with 50855936"),
        (LABELS, lambda raw: as_idx(np.zeros((20, 2, 2))), "starts with 2051"),
        (IMAGES, lambda raw: b"", "has 0 bytes"),
        (IMAGES, lambda raw: raw[:10], "dimensions"),
        (IMAGES, lambda raw: as_idx(np.zeros((0, 6, 5))), r"dimensions \(0, 6, 5\)"),
        (IMAGES, lambda raw: raw[:-1], "599 bytes after its header"),
        (IMAGES, lambda raw: raw + b"\0", "601 bytes after its header"),
        (IMAGES, lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "600 bytes after its header"),
        (
            LABELS,
            lambda raw: as_idx(np.zeros(19)),
            "20 images and train-labels-idx1-ubyte.gz 19 labels",
        ),
    ],
)
def test_spoilt_idx_is_named(tmp_path, stem, spoil, match):
    arrays = write_set(tmp_path)
    (tmp_path / f"{stem}.gz").write_bytes(spoil(as_idx(arrays[stem])))
    fails(rf"{stem}.*{match}" if stem not in match else match, "mnist", tmp_path)


@given(
    content=st.binary(max_size=64),
    packed=st.booleans(),
    magic=st.sampled_from([2051, 2049]),
    head=st.booleans(),
)
def test_random_bytes_are_an_array_or_a_data_error(content, packed, magic, head):
    content = (
        np.array([magic, 1, 2, 2], ">u4").tobytes()[: 4 + len(content) % 13] + content
        if head
        else content
    )
    try:
        array = idx.parse(
            gzip.compress(content) if packed else content, Path("some-file"), magic=magic
        )
    except data.DataError as error:
        message = str(error)
    else:
        message = "some-file"
        assert array.size > 0
        assert array.ndim == idx.MAGIC[magic]
    assert "some-file" in message


@settings(max_examples=50, deadline=None)
@given(content=st.dictionaries(st.sampled_from([*idx.SHA256["mnist"]]), st.binary(max_size=40)))
def test_random_files_load_or_are_a_data_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("idx")
    write_set(folder)
    for stem, raw in content.items():
        (folder / f"{stem}.gz").write_bytes(raw)
    try:
        data.load(config("mnist", folder))
    except data.DataError:
        assert content
    else:
        assert not content


def test_swap_of_namesakes_is_seen_by_the_mean(tmp_path):
    write_set(tmp_path, scale=2 * 0.1307)
    data.load(config("mnist", tmp_path, train="train[:10]"))
    fails("which is mnist's, where fashion_mnist", "fashion_mnist", tmp_path)
    write_set(tmp_path, scale=2 * 0.2880)
    fails("which is fashion_mnist's, where mnist", "mnist", tmp_path)


def test_swap_of_namesakes_is_seen_by_the_checksum(tmp_path, monkeypatch):
    write_set(tmp_path)
    sha = hashlib.sha256((tmp_path / f"{LABELS}.gz").read_bytes()).hexdigest()
    monkeypatch.setitem(idx._OWNERS, sha, idx._Known("mnist", LABELS))
    data.load(config("mnist", tmp_path))
    fails(f"{LABELS}.gz is mnist's", "fashion_mnist", tmp_path)
    monkeypatch.setitem(idx._OWNERS, sha, idx._Known("mnist", "t10k-labels-idx1-ubyte"))
    fails("is mnist's t10k-labels", "mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist", "tfds:mnist"])
def test_data_dir_that_is_not_there(tmp_path, name):
    fails("does not exist", name, tmp_path / "absent")
    (tmp_path / "file").touch()
    fails("is not a folder", name, tmp_path / "file")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_unreadable_file(tmp_path):
    write_set(tmp_path)
    (tmp_path / f"{LABELS}.gz").unlink()
    (tmp_path / f"{LABELS}.gz").mkdir()
    fails("cannot be read", "mnist", tmp_path)


# --- fetching
# -------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror on this machine with a small mnist; yields (its folder, arrays, the paths asked
    for).
    """
    folder = tmp_path / "mirror"
    asked = []
    folder.mkdir()
    arrays = write_set(folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            asked.append((self.command, self.path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True).start()
    monkeypatch.setitem(
        idx.MIRRORS, "mnist", ("http://127.0.0.1:1/", f"http://127.0.0.1:{server.server_port}/")
    )
    sums = {
        stem: hashlib.sha256((folder / f"{stem}.gz").read_bytes()).hexdigest() for stem in arrays
    }
    monkeypatch.setitem(idx.SHA256, "mnist", sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    yield folder, arrays, asked
    server.shutdown()
    server.server_close()


def test_fetch_once_into_the_cache(tmp_path, mirror, capsys):
    _, arrays, asked = mirror
    got = data.load(config("mnist", ""))
    np.testing.assert_array_equal(got.train.x, arrays[IMAGES])
    cache = tmp_path / "cache" / "vi_jax" / "data" / "mnist"
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{stem}.gz" for stem in arrays)
    assert capsys.readouterr().err.count("fetching") == 4
    assert got.source == str(cache)
    del asked[:]
    data.load(config("mnist", ""))
    assert asked == []


def test_fetch_into_data_dir(tmp_path, mirror):
    target = tmp_path / "here"
    target.mkdir()
    data.load(config("mnist", target, train="train[:10]", test="train[10:]"))
    # only what is needed
    assert sorted(path.name for path in target.iterdir()) == [f"{IMAGES}.gz", f"{LABELS}.gz"]


def test_fetch_refuses_other_bytes(tmp_path, mirror):
    folder, _, _ = mirror
    with (folder / f"{IMAGES}.gz").open("ab") as file:
        file.write(b"x")
    fails("came with sha256", "mnist", "")
    assert list((tmp_path / "cache").rglob("*ubyte*")) == []


def test_fetch_from_a_mirror_that_lacks_the_file(mirror):
    folder, _, _ = mirror
    (folder / f"{IMAGES}.gz").unlink()
    fails("no mirror answers .*404.*data_dir", "mnist", "")


def test_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(data.DataError, match="cannot be written"):
        fetch._write(tmp_path / "taken", b"x")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fails("cannot be made", "mnist", "")


def test_offline_hosts_that_refuse_or_are_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(idx.MIRRORS, "mnist", ("http://127.0.0.1:1/", "http://nowhere.invalid/"))
    fails("no mirror answers .*refused.*data_dir=FOLDER", "mnist", "")


@pytest.mark.integration
def test_offline_hosts_that_never_answer(tmp_path, monkeypatch):
    """A socket that accepts and stays mute, and a name look-up that hangs: both are given up in
    time.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    look_up = socket.getaddrinfo

    def slow(host, *args, **kwargs):
        if host == "slow.invalid":
            time.sleep(6)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setitem(
            idx.MIRRORS,
            "mnist",
            (f"http://127.0.0.1:{server.getsockname()[1]}/", "http://slow.invalid/"),
        )
        fails("no answer in 3 s", "mnist", "")


# --- the fixed binarisation
# -----------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """The three splits with few rows; yields their pixels."""
    monkeypatch.setattr(binarized, "ROWS", {"train": 6, "validation": 4, "test": 3})
    return {
        split: RNG.integers(0, 2, (rows, 28, 28), dtype=np.uint8)
        for split, rows in binarized.ROWS.items()
    }


def write_amat(folder, few):
    for split, pixels in few.items():
        lines = [" ".join(map(str, row)) for row in pixels.reshape(len(pixels), -1)]
        (folder / f"binarized_mnist_{binarized.STORED[split]}.amat").write_text(
            " \n".join(lines) + "\n"
        )


def write_bits(folder, few):
    packed = {
        binarized.STORED[split]: np.packbits(a.reshape(len(a), -1), axis=1)
        for split, a in few.items()
    }
    np.savez(folder / binarized.BITS, **packed, train_label=np.arange(6))


@pytest.mark.parametrize("write", [write_amat, write_bits])
def test_binarized_reads_what_was_written(tmp_path, few, write):
    write(tmp_path, few)
    got = data.load(config("binarized_mnist", tmp_path, validation="validation"))
    for split, pixels in few.items():
        np.testing.assert_array_equal(getattr(got, split).x, pixels)
    assert got.num_levels == 2
    assert (got.train.labels is not None) == (write is write_bits)


def test_binarized_that_will_not_do(tmp_path, few):
    fails("never fetched .*amat", "binarized_mnist", "")
    fails("has no binarized_mnist", "binarized_mnist", tmp_path)
    write_amat(tmp_path, few)
    path = tmp_path / "binarized_mnist_train.amat"
    good = path.read_text()
    path.write_text(good[: len(good) // 2])
    fails("cut short", "binarized_mnist", tmp_path)
    path.write_text(good.replace("1", "2", 1))
    fails("more than 0s and 1s", "binarized_mnist", tmp_path)
    path.write_text(good.replace("1 0", "10", 1))
    fails("more than 0s and 1s", "binarized_mnist", tmp_path)
    path.unlink()
    fails("cannot be read", "binarized_mnist", tmp_path)
    np.savez(tmp_path / binarized.BITS, train=np.zeros((5, 98), np.uint8))
    fails("packbits rows", "binarized_mnist", tmp_path)
    np.savez(tmp_path / binarized.BITS, valid=np.zeros((5, 98), np.uint8))
    fails("has no 'train'", "binarized_mnist", tmp_path)
