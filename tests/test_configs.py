"""Every config in configs/ and every variant of it: it loads, is valid and documented, trains, and
comes back from its JSON.
"""

import importlib
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from command_helpers import ROOT, small, write_idx

import vi_jax as vi
from configs import replay
from experiments import build, files, rundir, session, settings
from vi_jax.training import evaluation_params

MODULES = {
    path.stem: importlib.import_module(f"configs.{path.stem}")
    for path in sorted((ROOT / "configs").glob("*.py"))
    if path.stem not in ("__init__", "replay")
}
MEMBERS = [(name, variant) for name, module in MODULES.items() for variant in module.VARIANTS]


def config_of(name, variant):
    return MODULES[name].get_config(variant)


@pytest.mark.parametrize(("name", "variant"), MEMBERS)
def test_every_variant_is_valid(name, variant):
    config = config_of(name, variant)
    settings.validate(config)
    assert config.name == f"{name}-{variant}"
    assert set(settings.flatten(config.to_dict())) == set(
        settings.flatten(MODULES[name].get_config().to_dict())
    )


@pytest.mark.parametrize("name", MODULES)
def test_first_variant_is_the_default(name):
    module = MODULES[name]
    assert module.get_config().to_dict() == module.get_config(module.VARIANTS[0]).to_dict()
    for variant in module.VARIANTS:
        assert re.search(rf"\b{variant}\b", module.__doc__), f"{variant} is not in the docstring"
    with pytest.raises(ValueError, match=", ".join(module.VARIANTS)):
        module.get_config("none of them")


@pytest.mark.parametrize(("name", "variant"), MEMBERS)
def test_two_calls_share_nothing(name, variant):
    one = config_of(name, variant)
    two = config_of(name, variant)
    one.model.hidden = (1,)
    one.data.name = "other"
    assert two.to_dict() == config_of(name, variant).to_dict()
    assert two.data.name != "other"


@pytest.mark.parametrize("name", MODULES)
def test_choices_are_in_the_comments(name):
    """Beside a field with names to choose from, its comment, which may go on over the next lines,
    lists all of them.
    """
    lines = re.sub(r"\n\s+# ", " ", Path(MODULES[name].__file__).read_text()).splitlines()
    for field, names in settings.CHOICES.items():
        if len(names) < 2 or field == "eval.split":
            continue
        own = [
            line
            for line in lines
            if re.match(rf"\s+{field.split('.')[-1]}=\"", line) and "#" in line
        ]
        assert any(
            all(re.search(rf"\b{each}\b", line.split("#")[1]) for each in names) for line in own
        ), field


def stand_in(config, folder):
    """The same config on random images in the files that its data would come in, and of a tiny
    size.
    """
    folder.mkdir()
    if config.data.name in ("mnist", "fashion_mnist"):
        write_idx(folder)
        config.data.update(data_dir=str(folder), train="train[:40]", validation="train[40:]")
    elif config.data.name != "digits":
        rng = np.random.default_rng(0)
        splits = {
            f"x_{split}": rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
            for split in ("train", "test")
        }
        np.savez(folder / "stand_in.npz", **splits)
        config.data.update(
            name=f"npz:{folder / 'stand_in.npz'}", train="train", validation="", test="test"
        )
    config.model.hidden = tuple(min(width, 4) for width in config.model.hidden)
    config.optim.lr_warmup_steps = min(config.optim.lr_warmup_steps, 1)
    config.train.update(batch_size=16, num_steps=2)
    return config


@pytest.mark.parametrize(("name", "variant"), MEMBERS)
def test_every_variant_trains(name, variant, tmp_path):
    """Two steps by the pieces of experiments.train: every parameter moves, and one example can be
    decoded.
    """
    config = stand_in(config_of(name, variant), tmp_path / "data")
    settings.validate(config)
    dataset = session.load_data(config)
    model = session.make_model(config, dataset)
    state = session.start_state(config, model)
    before = jax.tree.map(np.array, state.params)
    step = vi.make_step(
        build.loss(config, model),
        build.optimizer(config),
        ema_decay=config.optim.ema,
        prepare=build.prepare(config, dataset.num_levels),
    )
    make = {"compiled": vi.make_run, "stepwise": vi.make_stepwise_run}[config.train.loop]
    run = make(step, batch_size=config.train.batch_size)
    state, info = run(state, jax.numpy.asarray(dataset.train.images), config.train.num_steps)
    assert int(state.step) == 2
    assert int(info.bad_step) == -1
    assert all(np.isfinite(value) for value in info.metrics.values())
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), before, state.params)
    still = [
        jax.tree_util.keystr(path)
        for path, each in jax.tree_util.tree_flatten_with_path(moved)[0]
        if not each
    ]
    assert not still, f"these parameters did not move: {still}"
    x, _ = session.evaluation_set(config, dataset, config.eval.split)
    p = model.densities.decode(
        evaluation_params(state), None, np.zeros(config.model.num_latents, np.float32)
    )
    assert np.isfinite(p.log_prob(x[0]).sum())


# --- JSON and back
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), MEMBERS)
@pytest.mark.parametrize("by_folder", [True, False])
def test_replay_gives_the_config_back(name, variant, by_folder, tmp_path):
    config = config_of(name, variant)
    files.write_json(tmp_path / "config.json", rundir.to_plain(config))
    again = replay.get_config(str(tmp_path if by_folder else tmp_path / "config.json"))
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.model.hidden, tuple)
    assert rundir.to_plain(again) == rundir.to_plain(config)
    assert rundir.default_folder(again) == rundir.default_folder(config)
    settings.validate(again)


def test_lists_and_tuples_are_one_config():
    config = small()
    assert isinstance(rundir.to_plain(config)["model"]["hidden"], list)
    back = rundir.from_plain(json.loads(json.dumps(rundir.to_plain(config))))
    assert back.model.hidden == (8,)
    assert back.to_dict() == config.to_dict()


def test_replay_of_nothing_or_of_no_config_says_so(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        replay.get_config(str(tmp_path / "none.json"))
    for content in ("{", ""):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match="is no config"):
            replay.get_config(str(tmp_path))
