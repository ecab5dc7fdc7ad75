"""Every config in configs/ and every variant of it: it loads, is valid and documented, trains, and
comes back from its JSON.
"""

import importlib
import json
import re

import jax
import numpy as np
import pytest
from command_helpers import ROOT, small, write_idx

import vi_jax as vi
from configs import replay
from experiments import config_file, settings
from experiments.evals import images, sequences, tables
from experiments.run import folder, session, single
from experiments.run.folder import default_folder
from experiments.run.record import FORMAT, from_plain, to_plain
from vi_jax import files
from vi_jax.training import evaluation_params

MODULES = {
    path.stem: importlib.import_module(f"configs.{folder}{path.stem}")
    for folder in ("", "neural.")
    for path in sorted((ROOT / "configs" / folder.strip(".")).glob("*.py"))
    if path.stem not in ("__init__", "base", "replay")
}
OTHER_DATA = ("mnist", "frey", "new_conditions", "tutorial")  # in the names of variants
# minutes of compiling for what other variants, and the laws, hold too
# besides, with the model of another variant, whose laws are those of tests/test_models_laws.py
SLOW = [
    ("aevb", "digits_wake_sleep"),
    ("bidirectional", "conv"),
    ("colour", "bidirectional"),
    ("discrete", "disarm"),
    ("discrete", "rebar"),
    ("discrete", "wake_sleep"),  # runs to its pictures below
    ("disentangle", "beta"),
    ("disentangle", "beta_full"),
    ("disentangle", "beta_tc_full"),
    ("disentangle", "info"),
    ("dlgm", "rank_one"),
    ("figure3", "digits_mcem"),
    ("gated", "mnist_miselbo"),
    ("gpfa", "lorenz"),
    ("gpfa", "negative_binomial"),
    ("iwae", "two_layers"),  # runs to its pictures below
    ("lfads", "inputs"),
    ("plds", "lorenz"),  # trained by tests/test_decode.py
    ("priors", "mixture"),
    ("semi_supervised", "stacked"),
    ("sequence", "oscillations"),  # trained by tests/test_sequences_command.py
    ("slds", "rotations"),
    ("table", "counts"),
    ("vae", "aevb"),
    ("vae", "gaussian"),
]
MEMBERS = [(name, variant) for name, module in MODULES.items() for variant in module.VARIANTS]


def config_of(name, variant):
    """The config as the commands have it, every choice written out."""
    return config_file.set_fields(MODULES[name].get_config(variant), [])


@pytest.mark.parametrize(("name", "variant"), MEMBERS)
def test_every_variant_is_valid(name, variant):
    config = config_of(name, variant)
    settings.validate(config)
    assert config.name == f"{name}-{variant}"


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
    one = MODULES[name].get_config(variant)
    two = MODULES[name].get_config(variant)
    one.model.name = "other"
    one.data.name = "other"
    assert two.to_dict() == MODULES[name].get_config(variant).to_dict()
    assert two.data.name != "other"


def stand_in(config, folder):
    """The same config on random images in the files that its data would come in, and of a tiny
    size.
    """
    folder.mkdir()
    if config.data.name in ("mnist", "fashion_mnist"):
        write_idx(folder)
        config.data.update(data_dir=str(folder), train="train[:40]", validation="train[40:]")
    elif config.data.name == "photos":
        config.data.update(train="train[:40]", validation="", test="test[:40]")
    elif config.data.name not in ("digits", "shapes_small"):
        rng = np.random.default_rng(0)
        splits = {
            f"x_{split}": rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
            for split in ("train", "test")
        }
        np.savez(folder / "stand_in.npz", **splits)
        config.data.update(
            name=f"npz:{folder / 'stand_in.npz'}", train="train", validation="", test="test"
        )
    if config.data.num_labels:
        config.data.update(num_labels=10, label_copies=2)
    with config.unlocked():
        shrink(config.model)
        has_layers = isinstance(config.model.get("num_latents"), tuple)
        if "width" in config.model and has_layers:  # of one width
            config.model.update(num_latents=(1, 2), width=4)
        if "halvings" in config.model:
            config.model.halvings = (1, 2)
        if hasattr(config.optim.learning_rate, "warmup_steps"):
            config.optim.learning_rate.warmup_steps = 1
        config.train.update(batch_size=16, num_steps=3)
    return config


def smaller(widths):
    """Widths of 4 at most, in tuples within tuples too."""
    return tuple(smaller(w) if isinstance(w, tuple) else min(w, 4) for w in widths)


def shrink(choice):
    """Widths of networks of 4 at most, in every choice within."""
    for name, value in choice.items():
        if name == "hidden":
            choice[name] = smaller(value)
        elif hasattr(value, "items"):
            shrink(value)


def marks_of(name, variant):
    """Variants that are another one's on other data, or of its size in the paper, are left to the
    slow tests.
    """
    is_another = any(word in variant for word in OTHER_DATA) and variant != "mnist_miselbo"
    is_slow = (name, variant) in SLOW or (is_another and MODULES[name].VARIANTS[0] != variant)
    return (pytest.mark.slow,) if is_slow else ()


@pytest.mark.cases(
    rest=None,
    slow=[
        "bidirectional-digits",
        "disentangle-beta_tc",
        "dlgm-diagonal",
        "ladder-digits",
        "priors-flow",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(*member, marks=marks_of(*member)) for member in MEMBERS],
)
def test_every_variant_trains(name, variant, tmp_path):
    """Three steps by the pieces of experiments.train: every parameter moves, the ELBO and what the
    pictures show are finite.
    """
    config = stand_in(config_of(name, variant), tmp_path / "data")
    settings.validate(config)
    built = session.build_all(config)
    state = session.start_state(config, built.model)
    before = jax.tree.map(np.array, state.params)
    run, data = session.make_run(built, vi.shard.ALONE)
    state, info = run(state, data, config.train.num_steps)
    assert int(state.step) == 3
    assert int(info.bad_step) == -1
    assert all(np.isfinite(value) for value in info.metrics.values())
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), before, state.params)
    still = [
        jax.tree_util.keystr(path)
        for path, each in jax.tree_util.tree_flatten_with_path(moved)[0]
        if not each
    ]
    assert not still, f"these parameters did not move: {still}"
    params = evaluation_params(state)
    measures = built.meter.measure(jax.random.key(0), params, built.x)
    assert np.isfinite(measures.summary["elbo"]["mean"])
    if built.dataset.num_steps:
        found = sequences.decode(jax.random.key(1), built, params, num_samples=4)
        assert np.isfinite(found.samples[:, 0]).all()
        return
    if built.dataset.table is not None:
        rows = tables.decode(jax.random.key(1), built, params, num_samples=4)
        assert len(rows.samples) == 4
        assert np.isfinite(rows.samples).all()
        return
    decoded = images.decode(
        jax.random.key(1), built.subject, params, built.x, built.labels, num_samples=4
    )
    assert decoded.samples.shape[0] == 4
    for shown in (decoded.samples, decoded.reconstructions, decoded.paths):
        assert np.isfinite(shown).all()


# of which a run has failed where its pieces did not
RUN_BY_DEFAULT = [("iwae", "two_layers"), ("discrete", "wake_sleep")]


@pytest.mark.cases(rest=None, slow=["iwae-two_layers"])
@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        member if member in RUN_BY_DEFAULT else pytest.param(*member, marks=pytest.mark.slow)
        for member in MEMBERS
    ],
)
def test_every_variant_runs_to_its_pictures(name, variant, tmp_path, no_key_check):
    """As experiments.train has it: rows, evaluations, checkpoints, figures."""
    config = stand_in(config_of(name, variant), tmp_path / "data")
    config.train.update(num_steps=4, log_every=2, eval_every=4, checkpoint_every=4)
    config.eval.num_importance_samples = 4
    settings.validate(config)
    folder.open_folder(tmp_path / "run", config, overwrite=False)
    single.train(config, tmp_path / "run", resumed=False)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["elbo"]["mean"])
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2, 4]
    assert (tmp_path / "run" / "figures" / "learning_curves.png").exists()


# --- JSON and back
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), MEMBERS)
@pytest.mark.parametrize("by_folder", [True, False])
def test_replay_gives_the_config_back(name, variant, by_folder, tmp_path):
    config = config_of(name, variant)
    record = {"format": FORMAT, "code": {}, **to_plain(config)}
    files.write_json(tmp_path / "config.json", record)
    again = replay.get_config(str(tmp_path if by_folder else tmp_path / "config.json"))
    assert again.to_dict() == config.to_dict()
    assert to_plain(again) == to_plain(config)
    assert default_folder(again) == default_folder(config)
    settings.validate(again)


def test_lists_and_tuples_are_one_config():
    config = small()
    assert isinstance(to_plain(config)["model"]["network"]["hidden"], list)
    back = from_plain(json.loads(json.dumps(to_plain(config))))
    assert back.model.network.hidden == (8,)
    assert back.to_dict() == config.to_dict()


def test_replay_of_nothing_or_of_no_config_says_so(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        replay.get_config(str(tmp_path / "none.json"))
    for content in ("{", ""):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match="is no config"):
            replay.get_config(str(tmp_path))
