"""experiments.data: TFDS sets, and the real sets where they are at hand."""

import io
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import tfds

SHARED = Path(__file__).parents[2] / "shared" / "data"
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


def shared(folder):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"real data absent: there is no ../shared/data/{folder} beside the repository")
    return SHARED / folder


# --- TFDS
# -------------------------------------------------------------------------------------------------


def prepare_tiny(root, images, *, channels=1):
    """A TFDS set `tiny` with train and test splits, prepared by TFDS itself from PNG bytes, without
    a network.
    """
    import tensorflow_datasets as library

    def png(array):
        out = io.BytesIO()
        Image.fromarray(array).save(out, "PNG")
        out.seek(0)
        return out

    class Tiny(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("1.0.0")

        def _info(self):
            image = library.features.Image(shape=(*images.shape[1:3], channels))
            features = {"image": image, "label": library.features.ClassLabel(num_classes=3)}
            return library.core.DatasetInfo(
                builder=self, features=library.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

        def _generate_examples(self, start):
            for i in range(start, len(images), 2):
                yield i, {"image": png(images[i]), "label": i % 3}

    Tiny.name = "tiny"
    Tiny(data_dir=root, file_format="array_record").download_and_prepare()
    return root / "tiny" / "1.0.0"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    images = RNG.integers(2, 256, (9, 5, 4), dtype=np.uint8)
    root = tmp_path_factory.mktemp("tfds")
    return root, images, prepare_tiny(root, images)


@pytest.mark.parametrize("key", ["pythonClassName", "python\\u0043lassName", "type"])
def test_features_of_another_package_are_not_imported(tiny, tmp_path, monkeypatch, key):
    """TFDS would import the module that the folder names, and run what it finds on the path."""
    root, _, folder = tiny
    there = Path(shutil.copytree(root, tmp_path / "root")) / folder.relative_to(root)
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    text = (there / "features.json").read_text()
    changed = re.sub(
        r'"pythonClassName": "tensorflow_datasets[^"]*Image"',
        lambda _: f'"{key}": "trap.Image"',
        text,
    )
    assert changed != text
    (there / "features.json").write_text(changed)
    fails("names the class 'trap.Image', which is not of TFDS", "tfds:tiny", tmp_path / "root")


def rows(images):
    """Images as a set of rows: TFDS orders its records by a hash."""
    return sorted(image.tobytes() for image in images)


def test_tfds_reads_without_tensorflow(tiny):
    root, images, folder = tiny
    got = data.load(config("tfds:tiny", root))
    assert got.train.images.shape == (5, 5, 4)
    assert rows(got.train.images) == rows(images[::2])
    assert rows(got.test.images) == rows(images[1::2])
    by_pixels = {image.tobytes(): i % 3 for i, image in enumerate(images)}
    assert [by_pixels[image.tobytes()] for image in got.test.images] == got.test.labels.tolist()
    assert got.source == f"TFDS in {folder}"
    assert "tensorflow" not in sys.modules


def test_tfds_in_chunks_with_progress(tiny, monkeypatch, capsys):
    root, images, _ = tiny
    monkeypatch.setattr(tfds, "CHUNK", 2)
    monkeypatch.setattr(tfds.time, "monotonic", iter(range(0, 1000, 3)).__next__)
    assert rows(data.load(config("tfds:tiny", root)).train.images) == rows(images[::2])
    assert "4 of 5" in capsys.readouterr().err


def copy_of(folder, root):
    target = root / folder.parent.name / folder.name
    target.mkdir(parents=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_tfds_that_will_not_do(tiny, tmp_path):
    _, _, folder = tiny
    copy = copy_of(folder, tmp_path)
    fails("names no split .* Did you mean 'train'", "tfds:tiny", tmp_path, train="trian")
    shard = next(copy.glob("*train*"))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    fails("cannot be read", "tfds:tiny", tmp_path)
    shard.unlink()
    fails(f"{shard.name} is not there", "tfds:tiny", tmp_path)
    info = copy / "dataset_info.json"
    fields = json.loads(info.read_text())
    info.write_text(json.dumps(fields | {"fileFormat": "tfrecord"}))
    fails("prepared as tfrecord", "tfds:tiny", tmp_path)
    info.write_text("{")
    fails("dataset_info.json cannot be read", "tfds:tiny", tmp_path)


def test_tfds_needs_images(tiny, tmp_path):
    copy = copy_of(tiny[2], tmp_path)
    features = copy / "features.json"
    features.write_text(
        features.read_text().replace(
            '"image": {\n                "image"', '"photo": {\n                "image"'
        )
    )
    fails(r"features \(photo, label\)|features \(label, photo\)", "tfds:tiny", tmp_path)


def test_tfds_folder_layouts(tiny, tmp_path):
    _, images, folder = tiny
    copy_of(folder, tmp_path / "tiny" / "x").parent.rename(tmp_path / "tiny" / "small")
    fails("has the configs small; say which, as tfds:tiny/small", "tfds:tiny", tmp_path)
    assert rows(data.load(config("tfds:tiny/small", tmp_path)).train.images) == rows(images[::2])
    copy_of(folder, tmp_path / "y").rename(tmp_path / "y" / "tiny" / "0.9.0")
    copy_of(folder, tmp_path / "y").rename(tmp_path / "y" / "tiny" / "0.10.0")
    assert data.load(config("tfds:tiny", tmp_path / "y")).source.endswith("0.10.0")


def test_tfds_absent_and_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "NETWORK_URL", "http://127.0.0.1:1/")
    fails("no network answers .*download_and_prepare", "tfds:fashion_mnist", tmp_path)
    fails("Did you mean 'fashion_mnist'", "tfds:fashion_mist", tmp_path)
    fails("names no TFDS set", "tfds:../mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tfds_prepares_where_there_is_a_network(tiny, tmp_path, monkeypatch):
    import tensorflow_datasets as library

    _, images, folder = tiny
    calls = []

    def builder(name, *, data_dir, file_format):
        calls.append((name, file_format))
        if len(calls) == 1:
            return SimpleNamespace(download_and_prepare=lambda: 1 / 0)
        return SimpleNamespace(download_and_prepare=lambda: copy_of(folder, Path(data_dir)))

    monkeypatch.setattr(tfds.fetch, "first_answer", lambda urls, any_status: urls[0])
    monkeypatch.setattr(library, "list_builders", lambda with_community_datasets: ["tiny"])
    monkeypatch.setattr(library, "builder", builder)
    fails("could not prepare tiny .ZeroDivisionError.*TensorFlow", "tfds:tiny", tmp_path)
    assert rows(data.load(config("tfds:tiny", tmp_path)).train.images) == rows(images[::2])
    assert calls == [("tiny", "array_record")] * 2


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("PIL.Image", "Pillow"),
        ("importlib_resources", "importlib_resources"),
        ("array_record.python.array_record_data_source", "array_record"),
        ("tensorflow_datasets", "tensorflow-datasets"),
    ],
)
def test_tfds_names_the_package_that_is_missing(tmp_path, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    fails(f"pip install {package}", "tfds:mnist", tmp_path)


# --- the real sets
# --------------------------------------------------------------------------------------------------


def test_real_mnist():
    got = data.load(
        config("mnist", shared("mnist"), train="train[:50000]", validation="train[50000:]")
    )
    images = np.concatenate([got.train.images, got.validation.images])
    labels = np.concatenate([got.train.labels, got.validation.labels])
    assert images.shape == (60_000, 28, 28)
    assert abs(images.mean() / 255 - 0.1307) < 5e-5
    assert np.bincount(labels).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert np.bincount(got.test.labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    fails("is mnist's", "fashion_mnist", shared("mnist"))


def test_real_mnist_static_binarisation_keeps_the_mean():
    """E[bits] is the mean grey level; the standard error is that of independent pixels given the
    levels.
    """
    part = dict(train="test[:5000]", test="test[5000:]")
    grey = data.load(config("mnist", shared("mnist"), **part)).test.images / 255
    bits = data.load(config("mnist", shared("mnist"), **part, binarisation="static")).test.images
    stderr = np.sqrt((grey * (1 - grey)).sum()) / grey.size
    assert abs(bits.mean() - grey.mean()) < 5 * stderr


def test_real_tfds_mnist_is_the_idx_files_pixel_for_pixel():
    part = dict(train="test[:1]", test="test[1:]")
    ours = data.load(config("mnist", shared("mnist"), **part))
    theirs = data.load(config("tfds:mnist", shared("tfds"), **part))

    def ordered(got):
        images = np.concatenate([got.train.images, got.test.images]).reshape(10_000, -1)
        labels = np.concatenate([got.train.labels, got.test.labels])
        order = np.lexsort(images.T)
        return images[order], labels[order]

    for a, b in zip(ordered(ours), ordered(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    fails("is not there", "tfds:mnist", shared("tfds"))  # its train split is described, and absent
    assert "tensorflow" not in sys.modules


def test_real_binarized_mnist():
    got = data.load(config("binarized_mnist", shared("static_mnist"), validation="validation"))
    counts = [len(part.images) for part in (got.train, got.validation, got.test)]
    assert counts == [50_000, 10_000, 10_000]
    assert got.num_levels == 2
    assert got.train.images.shape[1:] == (28, 28)
    assert got.train.images.max() == 1
    assert abs(got.train.images.mean() - 0.1306) < 5e-4


def test_real_fashion_mnist():
    folder = Path(tempfile.gettempdir()) / "fashion"
    if not folder.is_dir():
        pytest.skip(
            "Fashion-MNIST absent: run ../shared/data/scripts/fashion_mnist_original_gz.sh into "
            "TMPDIR/fashion"
        )
    got = data.load(config("fashion_mnist", folder))
    assert abs(got.train.images.mean() / 255 - 0.2860) < 5e-5
    assert np.bincount(got.train.labels).tolist() == [6000] * 10
    fails("is fashion_mnist's", "mnist", folder)
