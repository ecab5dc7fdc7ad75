"""Runs over data that stay on disk: as those in memory, and gone on with to the last bit."""

import jax
import numpy as np
import pytest
from helpers import tree_equal
from PIL import Image
from test_data_tfds import prepare_tiny

import vi_jax as vi
from configs import table, vae
from experiments import config_file, settings
from experiments.data.lazy import OnDisk
from experiments.evals import encoded, encoding
from experiments.overrides import Override
from experiments.run import session
from experiments.run.checkpoints import Checkpoints

pytest_plugins = ["command_helpers"]

FIELDS = {
    "train.batch_size": 32,
    "train.num_steps": 12,
    "train.log_every": 4,
    "train.eval_every": 12,
    "train.checkpoint_every": 4,
    "model.num_latents": 2,
    "eval.num_importance_samples": 4,
    "data.device_limit_mb": 0,
}
OF_TABLES = {"model.hidden": "(8,)"}
OF_IMAGES = {"model.network.hidden": "(8,)", "data.binarisation": "dynamic"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A table with missing values, and images, each in shards; the same images as files, and in the
    records of TFDS.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (200, 4)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    images = rng.integers(0, 256, (200, 6, 5), np.uint8)
    found = {}
    for name, array in {"table": x, "images": images}.items():
        folder = tmp_path_factory.mktemp(name)
        for i in range(3):
            np.savez(folder / f"{i}.npz", x=array[70 * i : 70 * (i + 1)])
        found[name] = folder
    found["files"] = tmp_path_factory.mktemp("files")
    for i, image in enumerate(images):
        Image.fromarray(image).save(found["files"] / f"{i:03d}.png")
    found["records"] = tmp_path_factory.mktemp("records")
    prepare_tiny(found["records"], images)
    return found


def fields_of(kind, folder):
    own = OF_TABLES if kind == "table" else OF_IMAGES
    where = {"files": f"images:{folder}", "records": "tfds:tiny"}
    of_data = {"data.name": where.get(kind, f"npz:{folder}")}
    if kind == "records":
        of_data["data.data_dir"] = str(folder)
    return FIELDS | own | of_data


def config_of(kind, folder, **changes):
    module = table if kind == "table" else vae
    fields = fields_of(kind, folder) | changes
    config = config_file.set_fields(
        module.get_config(), [Override(name, str(value)) for name, value in fields.items()]
    )
    settings.validate(config)
    return config


def start(config):
    """As a process that begins has it: (run, data, the state before the first step)."""
    built = session.build_all(config)
    run, data = session.make_run(built, vi.shard.ALONE)
    return run, data, session.start_state(config, built.model)


@pytest.mark.cases(rest=None, slow=["images", "records"])
@pytest.mark.integration
@pytest.mark.parametrize("kind", ["table", "images", "files", "records"])
def test_a_run_from_disk_is_the_run_from_memory_and_goes_on_to_the_bit(sources, kind, tmp_path):
    config = config_of(kind, sources[kind])
    run, data, state = start(config)
    assert all(isinstance(leaf, OnDisk) for leaf in jax.tree.leaves(data))
    unbroken, _ = run(state, data, 12)
    # stopped after 5 steps, read from its checkpoint, the data opened again
    run, data, state = start(config)
    stopped, _ = run(state, data, 5)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(stopped)
    run, data, state = start(config)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        state = checkpoints.restore_latest(state)
    resumed, _ = run(state, data, 7)
    assert tree_equal(resumed.params, unbroken.params)
    # in memory: on the device, in another program
    run, data, state = start(config_of(kind, sources[kind], **{"data.device_limit_mb": 2048}))
    held, _ = run(state, data, 12)
    for one, other in zip(*map(jax.tree.leaves, (unbroken.params, held.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["table", "images"])
def test_parts_are_encoded_as_the_whole(sources, kind, tmp_path, monkeypatch):
    """Of images the pixels that are drawn differ by part: here levels are."""
    own = {"data.binarisation": "none", "model.likelihood": "discretized_logistic"}
    config = config_of(kind, sources[kind], **(own if kind == "images" else {}))
    dataset = session.load_data(config)
    model = session.make_model(config, dataset)
    params = model.init(jax.random.key(0))
    found = {}
    for size in (2**26, 800):
        monkeypatch.setattr(encoding, "PART_BYTES", size)
        work = encoding.Work(
            params,
            jax.random.split(jax.random.key(1)),
            session.make_evaluation_rows(config, dataset),
            encoding.make_moments(model, 16),
            log_p=None,
        )
        names = ("train", "validation", "test")
        out = tmp_path / str(size)
        out.mkdir()
        blocks = list(encoding.encoded_parts(config, dataset, names, work))
        assert (len(blocks) == 3) == (size > 800)
        encoded.write_latents(out, iter(blocks))
        assert sorted(path.name for path in out.iterdir()) == ["latents.csv", "latents.npz"]
        with np.load(out / "latents.npz") as arrays:
            found[size] = dict(arrays)
        lines = (out / "latents.csv").read_text().splitlines()
        assert len(lines) == 201
        assert lines[-1].split(",")[:2] == ["19", "test"]
    (whole, parts) = found.values()
    assert list(whole) == list(parts) == ["split", "row", "mean/z", "sd/z"]
    for name, array in whole.items():
        assert array.dtype == parts[name].dtype
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, parts[name], rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(array, parts[name])


def test_the_commands_train_from_disk(commands, sources, tmp_path):
    own = fields_of("table", sources["table"])
    flags = ["--config=configs/table.py"]
    flags += [f"--config.{name}={value}" for name, value in own.items()]
    done = commands.ok("train", *flags, f"--workdir={tmp_path / 'run'}")
    assert "shuffled by data.shuffle_seed" in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
    commands.ok("encode", f"--workdir={tmp_path / 'run'}", "--split=all")
    with np.load(tmp_path / "run" / "latents" / "latents.npz") as found:
        assert found["mean/z"].shape == (200, 2)
