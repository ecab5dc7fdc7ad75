"""experiments.data: TFDS sets, and the real sets where they are at hand."""

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from experiments import data
from experiments.data import features, records, tfds
from experiments.data.examples import parse_example

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


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    out.seek(0)
    return out


# What every example has beside its image and its label, where a set has such features.
EXTRA = {"text": "two words", "boxes": [], "number": 1.5}


def prepare_tiny(root, images, *, channels=1, features=None, encode=png):
    """A TFDS set `tiny` with train and test splits, prepared by TFDS itself, without a network.

    Args:
      features: functions of TFDS's own `features` that make 'image' and perhaps others.
      encode: what TFDS is given of an image: PNG bytes, or the array.
    """
    import tensorflow_datasets as library

    class Tiny(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("1.0.0")

        def _info(self):
            image = library.features.Image(shape=(*images.shape[1:3], channels))
            given = {"image": image, "label": library.features.ClassLabel(num_classes=3)}
            given |= {name: make(library.features) for name, make in (features or {}).items()}
            return library.core.DatasetInfo(
                builder=self, features=library.features.FeaturesDict(given)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

        def _generate_examples(self, start):
            for i in range(start, len(images), 2):
                others = {name: EXTRA[name] for name in features or {} if name in EXTRA}
                yield i, {"image": encode(images[i]), "label": i % 3, **others}

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
    said = r"features.json: the feature 'image' is of the class 'trap.Image', which is none of TFDS"
    fails(said, "tfds:tiny", tmp_path / "root")


def legacy(node, *, as_text):
    """Features in the older form: "type" and "content", or those as a text inside of the JSON."""
    name = node["pythonClassName"]
    if "featuresDict" in node:
        inner = node["featuresDict"]["features"].items()
        content = {name: legacy(part, as_text=False) for name, part in inner}
    elif "image" in node:
        shape = [int(size) for size in node["image"]["shape"]["dimensions"]]
        content = {"shape": shape, "dtype": "uint8", "encoding_format": "png"}
    else:
        content = {"num_classes": 3}
    if as_text:
        return {"pythonClassName": name, "jsonFeature": {"json": json.dumps(content)}}
    return {"type": name, "content": content}


@pytest.mark.parametrize("as_text", [True, False])
def test_the_older_forms_of_features_are_those_of_tfds(tiny, tmp_path, as_text):
    """TFDS itself reads them as the features that they stand for."""
    import tensorflow_datasets as library

    copy = copy_of(tiny[2], tmp_path)
    old = legacy(json.loads((copy / "features.json").read_text()), as_text=as_text)
    (copy / "features.json").write_text(json.dumps(old))
    theirs = library.builder_from_directory(copy).info.features
    assert theirs["image"].shape == (5, 4, 1)
    found = features.read_features(copy)
    assert found == features.read_features(tiny[2])
    assert rows(data.load(config("tfds:tiny", tmp_path)).train.x) == rows(tiny[1][::2])


FOREIGN = {"type": "trap.Image", "content": {}}
PROTO = "tensorflow_datasets.core.features.features_dict.FeaturesDict"


@pytest.mark.parametrize(
    "given",
    [
        {"type": PROTO, "content": {"image": FOREIGN}},
        {"type": PROTO, "content": json.dumps({"image": FOREIGN})},
        {"pythonClassName": PROTO, "jsonFeature": {"json": json.dumps({"image": FOREIGN})}},
        {"python_class_name": PROTO, "json_feature": {"json": json.dumps({"image": FOREIGN})}},
        {"pythonClassName": PROTO, "featuresDict": {"features": {"image": FOREIGN}}},
        {"pythonClassName": PROTO, "features_dict": {"features": {"image": FOREIGN}}},
        {"pythonClassName": "trap.FeaturesDict", "featuresDict": {"features": {}}},
        {"type": "tensorflow_datasets.core.features.trap.trap.Evil", "content": {}},
        FOREIGN,
    ],
)
def test_no_class_is_imported_by_its_name(tiny, tmp_path, monkeypatch, given):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    copy = copy_of(tiny[2], tmp_path / "root")
    (copy / "features.json").write_text(json.dumps(given))
    fails("which is none of TFDS's own that are read", "tfds:tiny", tmp_path / "root")
    assert "trap" not in sys.modules


@pytest.mark.parametrize("given", ["[]", "3", '"x"', "{}", "{", "[" * 5000, '{"type": 1}', "null"])
def test_features_that_are_none(tiny, tmp_path, given):
    copy = copy_of(tiny[2], tmp_path)
    (copy / "features.json").write_text(given)
    fails("features.json(: the feature '' is of the class| cannot be read)", "tfds:tiny", tmp_path)


@pytest.mark.parametrize("template", ["../{SPLIT}", "/etc/{SPLIT}", "{SPLIT.__class__}", "{NO}"])
def test_the_files_of_a_split_lie_in_its_folder(tiny, tmp_path, template):
    info = copy_of(tiny[2], tmp_path) / "dataset_info.json"
    fields = json.loads(info.read_text())
    fields["splits"][0]["filepathTemplate"] = template
    info.write_text(json.dumps(fields))
    fails("dataset_info.json cannot be read|is not there", "tfds:tiny", tmp_path)


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1)])
@pytest.mark.parametrize("encoding", ["image", "none", "bytes", "zlib"])
def test_what_is_read_is_what_tfds_reads(tmp_path, shape, encoding):
    """Colour and grey, images and tensors in each encoding, with features beside that are not
    read.
    """
    import tensorflow_datasets as library

    images = RNG.integers(2, 256, (5, *shape), dtype=np.uint8)
    made = {
        "text": lambda kinds: kinds.Text(),
        "boxes": lambda kinds: kinds.Sequence(kinds.BBoxFeature()),
        "number": lambda kinds: kinds.Scalar(np.float32),
    }
    if encoding != "image":
        made["image"] = lambda kinds: kinds.Tensor(shape=shape, dtype=np.uint8, encoding=encoding)
        folder = prepare_tiny(tmp_path, images, features=made, encode=lambda array: array)
    else:
        drop = images[..., 0] if shape[-1] == 1 else images
        folder = prepare_tiny(tmp_path, drop, features=made, channels=shape[-1])
    theirs = library.builder_from_directory(folder).as_data_source(split="train")
    ours = data.load(config("tfds:tiny", tmp_path)).train
    for i, record in enumerate(theirs):
        expected = record["image"][..., 0] if shape[-1] == 1 else record["image"]
        np.testing.assert_array_equal(ours.x[i], expected)
        assert ours.labels[i] == record["label"]
    assert len(theirs) == ours.num == 3


def test_a_set_is_read_without_tfds(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny[0]))
    assert rows(data.load(config("tfds:tiny", "")).test.x) == rows(tiny[1][1::2])


def test_records_that_are_missing_are_missed(tiny, tmp_path):
    info = copy_of(tiny[2], tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace('"5"', '"6"'))
    fails("5 records, where 6 are described", "tfds:tiny", tmp_path)


def test_what_tfds_would_read_instead_is_not_prepared(tiny, tmp_path, monkeypatch):
    """A folder with features and without dataset_info.json is no prepared set to us, and is one to
    TFDS.
    """
    monkeypatch.setattr(tfds.fetch, "first_answer", lambda urls, any_status: urls[0])
    (copy_of(tiny[2], tmp_path) / "dataset_info.json").unlink()
    fails("is there and is no prepared set; remove it", "tfds:tiny", tmp_path)


NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)
FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=5)
VALUES = st.dictionaries(
    st.text(max_size=5),
    st.lists(st.binary(max_size=300), min_size=1, max_size=3) | NUMBERS | FLOATS,
)


@hypothesis.given(VALUES, st.integers(0, 10**6), st.integers(1, 255))
def test_an_example_is_that_of_protocol_buffers(values, at, flip):
    """Against the generated classes; a damaged one is a ValueError, or another example."""
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()
    for name, value in values.items():
        feature = message.features.feature[name]
        if value and isinstance(value[0], bytes):
            feature.bytes_list.value.extend(value)
        elif value and isinstance(value[0], float):
            feature.float_list.value.extend(value)
        else:
            feature.int64_list.value.extend(value)
    record = message.SerializeToString()
    found = parse_example(record)
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert list(found[name]) == list(value)
    if record:
        damaged = bytearray(record)
        damaged[at % len(record)] ^= flip
        for content in (bytes(damaged), record[: at % len(record)]):
            with contextlib.suppress(ValueError):
                parse_example(content)


def rows(images):
    """Images as a set of rows: TFDS orders its records by a hash."""
    return sorted(image.tobytes() for image in images)


def test_tfds_reads_without_tensorflow(tiny):
    root, images, folder = tiny
    got = data.load(config("tfds:tiny", root))
    assert got.train.x.shape == (5, 5, 4)
    assert rows(got.train.x) == rows(images[::2])
    assert rows(got.test.x) == rows(images[1::2])
    by_pixels = {image.tobytes(): i % 3 for i, image in enumerate(images)}
    assert [by_pixels[image.tobytes()] for image in got.test.x] == got.test.labels.tolist()
    assert got.source == f"TFDS in {folder}"
    assert "tensorflow" not in sys.modules


def test_tfds_in_chunks_with_progress(tiny, monkeypatch, capsys):
    root, images, _ = tiny
    monkeypatch.setattr(records, "CHUNK", 2)
    monkeypatch.setattr(records.time, "monotonic", iter(range(0, 1000, 3)).__next__)
    assert rows(data.load(config("tfds:tiny", root)).train.x) == rows(images[::2])
    assert "4 of 5" in capsys.readouterr().err


def test_a_large_set_stays_in_its_records(tiny, tmp_path):
    """Images are decoded when they are indexed, in any order, to those in memory."""
    root, _, folder = tiny
    held = data.load(config("tfds:tiny", root))
    streamed = data.load(config("tfds:tiny", root, device_limit_mb=0))
    assert isinstance(streamed.train.x, data.OnDisk)
    assert streamed.train.x.shape == held.train.x.shape
    order = np.array([3, 0, 4, 4])
    for role in ("train", "test"):
        mine = getattr(streamed, role)
        theirs = getattr(held, role)
        np.testing.assert_array_equal(np.asarray(mine.x), theirs.x)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
    np.testing.assert_array_equal(streamed.train.x[order], held.train.x[order])
    # records are looked at when they are asked for
    copy = copy_of(folder, tmp_path)
    later = data.load(config("tfds:tiny", tmp_path, device_limit_mb=0)).train.x
    for shard in copy.glob("tiny-train*"):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(data.DataError, match="cannot be read"):
        later[np.arange(3)]


def test_records_of_several_files_are_read_by_their_number(tmp_path, monkeypatch):
    from array_record.python import array_record_module as library

    paths = []
    for shard, num in enumerate((3, 0, 5)):
        paths.append(tmp_path / f"{shard}.array_record")
        writer = library.ArrayRecordWriter(str(paths[-1]), "group_size:1")
        for i in range(num):
            writer.write(f"{shard} {i}".encode())
        writer.close()
    monkeypatch.setattr(records, "MOST_OPEN", 1)
    readers = records._Readers(paths)
    rows = np.array([7, 0, 3, 2, 7])
    assert readers.read(rows) == [b"2 4", b"0 0", b"2 0", b"0 2", b"2 4"]


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
    fails(r"features \('photo', 'label'\)|features \('label', 'photo'\)", "tfds:tiny", tmp_path)


def test_tfds_folder_layouts(tiny, tmp_path):
    _, images, folder = tiny
    copy_of(folder, tmp_path / "tiny" / "x").parent.rename(tmp_path / "tiny" / "small")
    fails("has the configs small; say which, as tfds:tiny/small", "tfds:tiny", tmp_path)
    assert rows(data.load(config("tfds:tiny/small", tmp_path)).train.x) == rows(images[::2])
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
            return SimpleNamespace(download_and_prepare=lambda download_dir: 1 / 0)
        return SimpleNamespace(
            download_and_prepare=lambda download_dir: copy_of(folder, Path(data_dir))
        )

    monkeypatch.setattr(tfds.fetch, "first_answer", lambda urls, any_status: urls[0])
    monkeypatch.setattr(library, "list_builders", lambda with_community_datasets: ["tiny"])
    monkeypatch.setattr(library, "builder", builder)
    fails("could not prepare tiny .ZeroDivisionError.*TensorFlow", "tfds:tiny", tmp_path)
    assert rows(data.load(config("tfds:tiny", tmp_path)).train.x) == rows(images[::2])
    assert calls == [("tiny", "array_record")] * 2


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("PIL.Image", "Pillow"),
        ("importlib_resources", "importlib_resources"),
        ("array_record.python.array_record_module", "array_record"),
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
    images = np.concatenate([got.train.x, got.validation.x])
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
    grey = data.load(config("mnist", shared("mnist"), **part)).test.x / 255
    bits = data.load(config("mnist", shared("mnist"), **part, binarisation="static")).test.x
    stderr = np.sqrt((grey * (1 - grey)).sum()) / grey.size
    assert abs(bits.mean() - grey.mean()) < 5 * stderr


@pytest.mark.integration
def test_real_tfds_mnist_is_the_idx_files_pixel_for_pixel():
    part = dict(train="test[:1]", test="test[1:]")
    ours = data.load(config("mnist", shared("mnist"), **part))
    theirs = data.load(config("tfds:mnist", shared("tfds"), **part))

    def ordered(got):
        images = np.concatenate([got.train.x, got.test.x]).reshape(10_000, -1)
        labels = np.concatenate([got.train.labels, got.test.labels])
        order = np.lexsort(images.T)
        return images[order], labels[order]

    for a, b in zip(ordered(ours), ordered(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    fails("is not there", "tfds:mnist", shared("tfds"))  # its train split is described, and absent
    assert "tensorflow" not in sys.modules


def test_real_binarized_mnist():
    got = data.load(config("binarized_mnist", shared("static_mnist"), validation="validation"))
    counts = [part.num for part in (got.train, got.validation, got.test)]
    assert counts == [50_000, 10_000, 10_000]
    assert got.num_levels == 2
    assert got.train.x.shape[1:] == (28, 28)
    assert got.train.x.max() == 1
    assert abs(got.train.x.mean() - 0.1306) < 5e-4


def test_real_fashion_mnist():
    folder = Path(tempfile.gettempdir()) / "fashion"
    if not folder.is_dir():
        pytest.skip(
            "Fashion-MNIST absent: run ../shared/data/scripts/fashion_mnist_original_gz.sh into "
            "TMPDIR/fashion"
        )
    got = data.load(config("fashion_mnist", folder))
    assert abs(got.train.x.mean() / 255 - 0.2860) < 5e-5
    assert np.bincount(got.train.labels).tolist() == [6000] * 10
    fails("is fashion_mnist's", "mnist", folder)
