"""experiments.data: names and settings, splits and their grammar, the digits, static
binarisation.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.vae import VARIANTS, get_config
from experiments import data
from experiments.data import levels, splits

RNG = np.random.default_rng(0)


def config(name="digits", **changes):
    """config.data with the digits' splits, or those of a source with official ones."""
    official = dict(train="train", validation="", test="test")
    thirds = dict(train="all[:50%]", validation="all[50%:75%]", test="all[75%:]")
    values = dict(
        data_dir="", shuffle_seed=0, binarisation="none", static_seed=0, device_limit_mb=2048
    )
    return SimpleNamespace(
        name=name, **(values | (thirds if name == "digits" else official) | changes)
    )


def fails(match, **changes):
    """Asserts that loading is a DataError of one line that matches; returns its text."""
    with pytest.raises(data.DataError, match=match) as caught:
        data.load(config(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names and settings
# ---------------------------------------------------------------------------------------------


def test_import_is_light():
    slow = ["jax", "tensorflow", "tensorflow_datasets", "sklearn", "PIL", "array_record"]
    code = f"import sys, experiments.data; print([m for m in {slow} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        == "[]\n"
    )


@pytest.mark.parametrize("name", [*data.NAMES, "tfds:mnist", "tfds:a/b", "npz:x.npz", "images:x"])
def test_good_names_pass(name):
    data.check_name(name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_of_the_configs_are_known(variant):
    data.check_name(get_config(variant).data.name)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("minst", "Did you mean 'mnist'"),
        ("fashion-mnist", "Did you mean 'fashion_mnist'"),
        ("image:x", "Did you mean 'images'"),
        ("", "is not known"),
        ("npz", "write npz:FILE"),
        ("tfds:", "write tfds:NAME"),
        ("digits:2", "is not known"),
        (3, "is no string"),
    ],
)
def test_bad_names(name, match):
    with pytest.raises(data.DataError, match=match):
        data.check_name(name)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (dict(binarisation="sttic"), "Did you mean 'static'"),
        (dict(shuffle_seed=-1), "0 or more"),
        (dict(shuffle_seed="zero"), "is no seed"),
        (dict(binarisation="static", static_seed=0.5), "is no seed"),
        (dict(train=None), "train=None is NoneType"),
        (dict(device_limit_mb="2 GB"), "is no size"),
    ],
)
def test_bad_settings(changes, match):
    fails(match, **changes)


def test_system_errors_are_data_errors(monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied", "some/file")

    monkeypatch.setattr(data, "open_source", refuse)
    fails("some/file cannot be read .*Permission denied")


def test_missing_setting():
    broken = config()
    del broken.test
    with pytest.raises(data.DataError, match="has no 'test'"):
        data.load(broken)


# --- splits
# -------------------------------------------------------------------------------------------------

BOUNDS = st.one_of(st.none(), st.integers(-40, 40))


@given(start=BOUNDS, stop=BOUNDS, size=st.integers(1, 30))
def test_slices_are_pythons(start, stop, size):
    text = f"all[{'' if start is None else start}:{'' if stop is None else stop}]"
    expected = np.arange(size)[start:stop]
    selection = splits.parse(text, "train")
    if len(expected):
        np.testing.assert_array_equal(np.array(splits.resolve(selection, size)), expected)
    else:
        with pytest.raises(data.DataError, match="holds no example"):
            splits.resolve(selection, size)


@given(percent=st.integers(1, 99), size=st.integers(100, 10_000))
def test_per_cents_meet(percent, size):
    head = splits.resolve(splits.parse(f"all[:{percent}%]", "train"), size)
    tail = splits.resolve(splits.parse(f"all[{percent}%:]", "test"), size)
    assert [*head, *tail] == list(range(size))
    assert abs(len(head) - size * percent / 100) <= 0.5


@given(text=st.text(max_size=20))
def test_any_text_parses_or_is_a_data_error(text):
    try:
        splits.parse(text, "train")
    except data.DataError:
        return
    assert text.strip()


@pytest.mark.parametrize(
    "text", [" ", "all[5]", "all[1:2:3]", "all[a:]", "[1:2]", "all[:", "all[:-101%]", "all[:50 %]"]
)
def test_bad_splits(text):
    fails("is no split|per cents are wanted", train=text)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (dict(train="all[:1000]", validation="", test="all[999:]"), "share 1 examples"),
        (dict(train="all[:60%]"), "config.data.validation"),
        (dict(train="all", test="all"), "share"),
        (dict(test="all[1797:]"), "holds no example"),
        (dict(train="al[:10]"), "has all. Did you mean 'all'"),
        (dict(validation="valid"), "names no split"),
    ],
)
def test_splits_that_do_not_fit(changes, match):
    fails(match, **changes)


def test_digits():
    got = data.load(config(train="all[:1257]", validation="all[1257:1437]", test="all[1437:]"))
    assert [part.num for part in (got.train, got.validation, got.test)] == [1257, 180, 360]
    assert (got.num_levels, got.train.x.dtype, got.train.x.shape[1:]) == (
        17,
        np.uint8,
        (8, 8),
    )
    assert got.train.x.max() == 16
    assert got.source == "embedded in scikit-learn"
    assert len(np.unique(got.test.labels)) == 10


def test_shuffle_is_one_permutation_keyed_by_its_seed():
    whole = data.load(config(train="all[:1796]", validation="", test="all[1796:]"))
    halves = data.load(config(train="all[:50%]", validation="", test="all[50%:]"))
    np.testing.assert_array_equal(halves.train.x, whole.train.x[: halves.train.num])
    np.testing.assert_array_equal(
        halves.train.labels, whole.train.labels[: len(halves.train.labels)]
    )
    other = data.load(config(train="all[:50%]", validation="", test="all[50%:]", shuffle_seed=1))
    assert not np.array_equal(other.train.labels, halves.train.labels)
    assert other.fingerprint != halves.fingerprint
    assert data.load(config()).fingerprint == data.load(config()).fingerprint


# --- static binarisation
# --------------------------------------------------------------------------------------------


def test_static_binarisation_is_a_function_of_seed_and_example():
    def get(seed, static_seed, **changes):
        return data.load(
            config(binarisation="static", shuffle_seed=seed, static_seed=static_seed, **changes)
        )

    one = get(0, 7)
    again = get(0, 7)
    reshuffled = get(1, 7)
    assert one.num_levels == 2
    np.testing.assert_array_equal(one.train.x, again.train.x)
    unshuffle = [np.argsort(np.random.default_rng(seed).permutation(1797)) for seed in (0, 1)]
    both = [
        np.concatenate([part.x for part in (got.train, got.validation, got.test)])[order]
        for got, order in zip((one, reshuffled), unshuffle, strict=True)
    ]
    # the same bits for the same image under another shuffle
    np.testing.assert_array_equal(both[0], both[1])
    assert not np.array_equal(one.train.x, get(0, 8).train.x)


def test_static_binarisation_has_the_right_mean():
    images = np.broadcast_to(np.arange(17, dtype=np.uint8), (20_000, 17))
    bits = levels.binarise(images, 17, seed=3, split="all")
    p = np.arange(17) / 16
    stderr = np.sqrt(p * (1 - p) / len(images))
    assert np.all(np.abs(bits.mean(0) - p) <= 5 * stderr)  # exactly so for levels 0 and 16
    assert np.all(np.abs(np.corrcoef(bits[:, 1:-1].T) - np.eye(15)) < 5 / len(images) ** 0.5)


def test_static_binarisation_never_lights_a_pixel_of_level_0():
    seed = 0
    shape = (8, 2**22)
    generator = np.random.Generator(np.random.PCG64([seed, *b"all"]))
    draws = [generator.random(shape[1], dtype=np.float32).min() for _ in range(shape[0])]
    assert min(draws) == 0  # this seed draws a 0, the one number that tells < from <=
    assert not levels.binarise(np.zeros(shape, np.uint8), 256, seed=seed, split="all").any()


def test_static_binarisation_heeds_no_chunks_and_keys_by_split(monkeypatch):
    # an odd size, more than one chunk
    images = RNG.integers(0, 256, (4099, 33, 33), dtype=np.uint8)
    bits = levels.binarise(images, 256, seed=0, split="train")
    draws = np.random.Generator(np.random.PCG64([0, *b"train"])).random(
        images.shape, dtype=np.float32
    )
    np.testing.assert_array_equal(bits, draws < images / np.float32(255))
    assert not np.array_equal(bits, levels.binarise(images, 256, seed=0, split="test"))
    # binary images stay
    np.testing.assert_array_equal(bits, levels.binarise(bits, 2, seed=5, split="train"))
