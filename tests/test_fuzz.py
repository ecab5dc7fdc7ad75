"""Whatever is typed or lies on the disk is used as it was meant, or refused in a sentence; nothing
of it is executed.

The default suite tries a few hundred cases, `pytest -m slow` thousands.
"""

import contextlib
import functools
import gzip
import json
import math
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from command_helpers import small, write_idx
from helpers import tree_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_checkpoints import made_state, plain_key
from test_data_tfds import config as data_config
from test_data_tfds import prepare_tiny

from experiments import build, config_file, data
from experiments import settings as config_settings
from experiments.cli import UserError
from experiments.data import idx
from experiments.overrides import split
from experiments.run import metrics, nonfinite, session
from experiments.run.checkpoints import Checkpoints
from experiments.run.contents import CONFIG, DATA
from experiments.run.folder import check_data, default_folder
from experiments.run.record import from_plain, read_config, to_plain

FIELDS = sorted(config_settings.flatten(to_plain(small())))
MARKER = Path(__file__).with_name("executed-by-a-test")  # which no case may leave behind
BAIT = f"__import__('pathlib').Path({str(MARKER)!r}).touch()"


def cases(few, many):
    """How many cases: few by default, many where it is slow."""
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.slow)])


def fuzz(number, **strategies):
    """Runs a function on so many drawn cases."""
    quick = settings(
        max_examples=number,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        deadline=None,
        database=None,
    )
    return lambda function: quick(given(**strategies)(function))()


def sentence(caught):
    """Holds what is said to one line that ends as a sentence does."""
    text = str(caught)
    assert text.strip(), "it says nothing"
    assert "Traceback" not in text
    assert "\n" not in text.strip(), text


@contextlib.contextmanager
def used_or_refused():
    """Anything but a UserError is a crash."""
    try:
        yield
    except UserError as error:
        sentence(error)
    assert not MARKER.exists()


@st.composite
def damages(draw):
    """bytes -> other bytes: cut, flipped, zeroed, lengthened, repeated, in one to four places."""
    places = st.tuples(
        st.sampled_from(["cut", "flip", "zero", "insert", "repeat", "number"]),
        st.floats(0, 1),
        st.integers(1, 255),
    )
    changes = draw(st.lists(places, min_size=1, max_size=4))

    return functools.partial(damaged, changes)  # whose repr says what it does


def damaged(changes, content):
    """The bytes after changes `(what, place as a share of the length, byte)`."""
    content = bytearray(content)
    for what, place, byte in changes:
        at = min(int(place * len(content)), max(len(content) - 1, 0))
        if what == "cut":
            del content[at:]
        elif what == "flip" and content:
            content[at] ^= byte
        elif what == "zero":
            content[at : at + byte] = bytes(len(content[at : at + byte]))
        elif what == "insert":
            content[at:at] = bytes([byte]) * (byte % 9)
        elif what == "repeat":
            content[at:at] = content[at : at + byte]
        elif what == "number":
            content[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)


# --- what is typed
# --------------------------------------------------------------------------------------------------

WORDS = """0 1 -1 2 7 nan inf -inf 1e400 1e-400 1e9 99999999999999999999
True False None () (1,) (1,2 [1] {} ' " \\ test train all digits npz: images:/ tfds: elbo iwae
real_nvp full_rank categorical gaussian skip conv static none optimal 0.1 1.5 auto
crop drop first unit table negative_binomial"""
VALUES = st.one_of(
    st.sampled_from(["", "a b", *WORDS.split()]),
    st.sampled_from(["0", "1", "2", "7", "auto", "none", ""]),  # what many fields take
    st.just(BAIT),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(-3, 70), max_size=3).map(lambda widths: str(tuple(widths))),
)
NAMES = st.one_of(
    st.sampled_from(FIELDS),
    st.sampled_from(FIELDS),
    st.sampled_from(FIELDS),
    st.sampled_from(FIELDS),
    st.text(max_size=8),
    st.just("train.__class__"),
)
OVERRIDES = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=4)


def parsed(overrides, monkeypatch):
    """The config that the command's own parser makes of --config.FIELD=VALUE."""
    words = [f"--config.{name}={value}" for name, value in overrides]
    rest, given = split(["train", "--config=configs/vae.py", *words])
    assert rest == ["train", "--config=configs/vae.py"]
    return config_file.load("configs/vae.py", given)


def sizes_in(choice):
    """The products of all sizes in a choice and those within."""
    for value in choice.values():
        if hasattr(value, "items"):
            yield from sizes_in(value)
        elif isinstance(value, tuple) and all(isinstance(each, int) for each in value):
            yield math.prod(value)
        elif isinstance(value, int):
            yield value


@cases(150, 5000)
def test_overrides(number, monkeypatch):
    """What passes the checks has a JSON record that gives it back, and a folder."""
    accepted = []

    def attempt(overrides):
        with used_or_refused():
            config = parsed(overrides, monkeypatch)
            config_settings.validate(config)
            plain = to_plain(config)
            assert to_plain(from_plain(json.loads(json.dumps(plain, allow_nan=False)))) == plain
            assert default_folder(config) == default_folder(from_plain(plain))
            accepted.append(overrides)

    fuzz(number, overrides=OVERRIDES)(attempt)
    assert number / 50 < len(accepted) < number, (
        f"{len(accepted)} of {number} were accepted: the law has not been tried"
    )


@cases(6, 150)
def test_a_config_that_passes_the_checks_makes_a_step(number, monkeypatch):
    """Traced, not compiled: it fails, if at all, in a sentence."""
    dataset = session.load_data(small())
    made = []

    def attempt(overrides):
        with used_or_refused():
            config = parsed(
                [(name, value) for name, value in overrides if not name.startswith("data.")],
                monkeypatch,
            )
            config_settings.validate(config)
            if (
                max(
                    [
                        *sizes_in(config.model),
                        *sizes_in(config.objective),
                        config.train.batch_size,
                    ]
                )
                > 10**5
            ):
                return  # tracing makes some constants
            model = session.make_model(config, dataset)
            state = jax.eval_shape(lambda: session.start_state(config, model))
            batch = jax.ShapeDtypeStruct((config.train.batch_size, 8, 8), np.uint8)
            units = build.units(config, dataset.num_levels)
            num_data = dataset.train.num
            jax.eval_shape(build.step(config, model, units, num_data=num_data), state, batch)
            made.append(overrides)

    with jax.debug_key_reuse(False):
        fuzz(
            number,
            overrides=st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=2),
        )(attempt)
    assert made


# --- what lies in a run folder
# --------------------------------------------------------------------------------------


@cases(80, 3000)
def test_config_json(number, tmp_path):
    whole = (json.dumps(to_plain(small()), indent=2) + "\n").encode()

    def attempt(damage):
        (tmp_path / CONFIG).write_bytes(damage(whole))
        with used_or_refused():
            config_settings.validate(read_config(tmp_path))

    fuzz(number, damage=damages())(attempt)


@cases(80, 3000)
def test_config_json_of_any_content(number, tmp_path):
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(BAIT)
    )
    values = st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
    )

    def attempt(field, value):
        plain = to_plain(small())
        *folders, name = field.split(".")
        place = plain
        for folder in folders:
            place = place[folder]
        place[name] = value
        (tmp_path / CONFIG).write_text(json.dumps(plain))
        with used_or_refused():
            config_settings.validate(read_config(tmp_path))

    fuzz(number, field=st.sampled_from([*FIELDS, "train", "model", "data", "eval"]), value=values)(
        attempt
    )


@cases(60, 2000)
def test_data_json(number, tmp_path):
    found = types.SimpleNamespace(name="digits", source="here", fingerprint="0123456789abcdef")
    check_data(tmp_path, found)
    whole = (tmp_path / DATA).read_bytes()

    def attempt(damage):
        (tmp_path / DATA).write_bytes(damage(whole))
        with used_or_refused():
            check_data(tmp_path, found)
            assert json.loads((tmp_path / DATA).read_bytes())["fingerprint"] == found.fingerprint

    fuzz(number, damage=damages())(attempt)


@cases(60, 2000)
def test_metrics_jsonl(number, tmp_path, capsys):
    """The rows that are kept are the first ones, each as it was or refused; where some are missing
    it is said.
    """
    rows = [{"step": step, "train/elbo": -1.5 * step} for step in range(1, 9)]
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / metrics.METRICS

    def attempt(damage):
        path.write_bytes(damage(whole))
        metrics.MetricsLog(tmp_path, from_step=8).close()
        said = capsys.readouterr().err
        kept = [row["step"] for row in metrics.read_rows(path)]
        assert ("was damaged: its rows end before step 8" in said) == (kept[-1:] != [8])

    fuzz(number, damage=damages())(attempt)


@pytest.mark.integration
@cases(25, 1000)
def test_moments(number, tmp_path):
    config = small()
    built = session.build_all(config)
    like = session.start_state(config, built.model)
    path = tmp_path / "step_0.npz"
    nonfinite.write(path, nonfinite._moment(like, built))
    whole = path.read_bytes()

    def attempt(damage):
        path.write_bytes(damage(whole))
        with used_or_refused():
            batch = nonfinite.read_batch(path, with_labels=False)
            moment = nonfinite.read(path, like, batch)
            assert tree_equal(plain_key(moment.state), plain_key(like)), "a wrong state in silence"

    fuzz(number, damage=damages())(attempt)


@pytest.mark.integration
@cases(12, 400)
def test_checkpoints(number, tmp_path, capfd):
    """One file of the newest checkpoint is damaged: it is restored to the last bit, or named and
    passed over.
    """
    with Checkpoints(tmp_path / "saved", keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(made_state(step=step))
    files = sorted(
        path.relative_to(tmp_path / "saved")
        for path in (tmp_path / "saved" / "2").rglob("*")
        if path.is_file()
    )
    turns = iter(range(number + 1))

    def attempt(file, damage):
        folder = tmp_path / str(next(turns))  # a folder of its own: storage caches by path
        shutil.copytree(tmp_path / "saved", folder)
        (folder / file).write_bytes(damage((folder / file).read_bytes()))
        with used_or_refused(), Checkpoints(folder, keep=2) as checkpoints:
            state = checkpoints.restore_latest(made_state(seed=1, step=0))
            assert tree_equal(plain_key(state), plain_key(made_state(step=int(state.step)))), (
                "a wrong state in silence"
            )
        shutil.rmtree(folder)
        err = capfd.readouterr().err
        assert (int(state.step) == 1) == err.startswith(
            f"warning: the checkpoint {folder / '2'} is"
        ), err
        assert "Traceback" not in err

    fuzz(number, file=st.sampled_from(files), damage=damages())(attempt)


# --- data
# -------------------------------------------------------------------------------------------------


@cases(150, 5000)
def test_idx_bytes(number, tmp_path):
    """Gzipped or not; what is read has the sizes that the header says."""
    write_idx(tmp_path)
    whole = [
        (tmp_path / "train-images-idx3-ubyte").read_bytes(),
        (tmp_path / "train-labels-idx1-ubyte").read_bytes(),
    ]

    def attempt(kind, packed, twice, damage):
        content = damage(whole[kind])
        if packed:
            content = gzip.compress(content)
            content = damage(content) if twice else content
        with used_or_refused():
            array = idx.parse(content, Path("file"), magic=(2051, 2049)[kind])
            assert array.dtype == np.uint8
            assert array.ndim == (3, 1)[kind]
            assert array.size

    fuzz(
        number, kind=st.integers(0, 1), packed=st.booleans(), twice=st.booleans(), damage=damages()
    )(attempt)


def load_damaged(number, folder, files, config):
    """Loads a set with one of its files damaged."""
    whole = {file: file.read_bytes() for file in files}

    def attempt(file, damage):
        file.write_bytes(damage(whole[file]))
        try:
            with used_or_refused():
                found = data.load(config)
                assert found.train.x.dtype == np.uint8
                assert found.train.x.max() < found.num_levels
        finally:
            file.write_bytes(whole[file])

    fuzz(number, file=st.sampled_from(files), damage=damages())(attempt)


@cases(40, 2000)
def test_idx_files(number, tmp_path):
    write_idx(tmp_path)
    load_damaged(number, tmp_path, sorted(tmp_path.iterdir()), data_config("mnist", tmp_path))


@cases(40, 2000)
def test_npz_files(number, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 5), dtype=np.uint8)
    np.savez_compressed(
        tmp_path / "mine.npz", x_train=images, y_train=np.arange(20), x_test=images[:5]
    )
    load_damaged(number, tmp_path, [tmp_path / "mine.npz"], data_config("npz:mine.npz", tmp_path))


@cases(15, 500)
def test_tfds_files(number, tmp_path):
    folder = prepare_tiny(
        tmp_path, np.random.default_rng(0).integers(2, 256, (9, 5, 4), dtype=np.uint8)
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    load_damaged(number, tmp_path, files, data_config("tfds:tiny", tmp_path))
