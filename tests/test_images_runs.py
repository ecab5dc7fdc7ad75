"""Runs on images as people bring them: each is trained to its last figure, or refused before."""

import jax
import numpy as np
import pytest
from command_helpers import small
from PIL import Image

from experiments import cli, config_file
from experiments.evals import decoding
from experiments.run import session, single
from experiments.run.folder import open_folder

pytestmark = pytest.mark.integration
RNG = np.random.default_rng(0)
FIGURES = {
    *("reconstructions.png", "samples.png", "interpolation.png", "kl_per_dimension.png"),
    *("latent_plane.png", "learning_curves.png"),
}
QUICK = {
    "train__num_steps": 4,
    "train__eval_every": 4,
    "train__log_every": 2,
    "train__checkpoint_every": 4,
    "train__batch_size": 10,
}


def pixels(*shape):
    return RNG.integers(0, 256, (30, *shape), dtype=np.uint8)


def config_of(folder, x, **changes):
    """The config of a short run on an array, or on the images that are in the folder."""
    folder.mkdir(exist_ok=True)
    name = f"images:{folder}"
    if x is not None:
        np.savez(folder / "mine.npz", images=x)
        name = f"npz:{folder / 'mine.npz'}"
    data = dict(data__name=name, data__train="all[:20]", data__validation="", data__test="all[20:]")
    return config_file.set_fields(small(**QUICK, **data, **changes), [])


def run(config, workdir):
    """Trains to the end; the figures by name."""
    open_folder(workdir, config, overwrite=False)
    with jax.debug_key_reuse(False):  # which takes the keys of a scan inside a vmap for used ones
        single.train(config, workdir, resumed=False)
    return {path.name for path in (workdir / "figures").iterdir()}


ARRAYS = {
    "channels first": (pixels(3, 8, 8), {}),
    "transparency kept": (pixels(8, 8, 4), {"data__alpha": "keep"}),
    "volumes in colour, levels": (
        pixels(6, 6, 6, 3),
        {"data__binarisation": "none", "model__likelihood": "discretized_logistic"},
    ),
    "to 255": (pixels(8, 8).astype(np.float32), {"data__size": (4,)}),
    "two channels, convolutions": (
        pixels(8, 8, 2),
        {"model__network": dict(name="conv", hidden=(4,))},
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_trained_to_their_figures(name, tmp_path, capsys):
    (x, changes) = ARRAYS[name]
    config = config_of(tmp_path / "data", x, **changes)
    assert run(config, tmp_path / "run") == FIGURES
    notes = [line for line in capsys.readouterr().err.splitlines() if "keeps the levels" in line]
    assert len(notes) == (config.data.binarisation == "dynamic")


def test_a_folder_of_several_sizes_and_modes_is_trained_from_disk(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(30):
        shape = (8 + i % 3, 8, 3) if i % 2 else (8 + i % 3, 8)
        Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    with pytest.raises(cli.UserError, match=r"--config\.data\.size=8,8"):
        session.load_data(config_of(folder, None))
    config = config_of(folder, None, data__size=(8,), data__device_limit_mb=0)
    assert run(config, tmp_path / "run") == FIGURES


def test_what_a_network_does_not_take_is_refused_before_training(tmp_path):
    config = config_of(
        tmp_path / "data", pixels(6, 6, 6, 3), model__network=dict(name="conv", hidden=(4,))
    )
    with pytest.raises(cli.UserError, match=r"images \[H, W\].*MLP"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_images_are_decoded_some_at_a_time_to_the_same(tmp_path, monkeypatch):
    config = config_of(
        tmp_path / "data",
        pixels(6, 6),
        data__binarisation="none",
        model__likelihood="discretized_logistic",
    )
    built = session.build_all(config)
    params = built.model.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (10, 3))
    whole = decoding.make_mean_of(built.subject)(params, built.x, z)
    monkeypatch.setattr(decoding, "MAX_NUMBERS", 3 * 36 * 256)
    assert decoding.most_at_a_time(built.subject, built.x) == 3
    parts = decoding.make_mean_of(built.subject)(params, built.x, z)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
