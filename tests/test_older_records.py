"""config.json of a version before some fields of config.data: read as what was done then."""

import json

import pytest

from configs import replay, table, vae
from experiments import config_file, settings
from experiments.cli import UserError
from experiments.run import added
from experiments.run.folder import open_folder
from experiments.run.record import FORMAT, read_config, to_plain
from vi_jax import files


def write(folder, config, *, without):
    """The record of a config without some fields of its data."""
    folder.mkdir(exist_ok=True)
    plain = to_plain(config)
    for name in without:
        del plain["data"][name]
    files.write_json(folder / "config.json", {"format": FORMAT, "code": {}, **plain})


def made(module):
    return config_file.set_fields(module.get_config(), [])


def test_fields_that_came_later_have_the_value_of_what_was_done_before(tmp_path, capsys):
    config = made(vae)
    write(tmp_path / "run", config, without=added.ADDED)
    again = read_config(tmp_path / "run")
    said = capsys.readouterr().err
    assert "is of a version before data.kind, data.size" in said
    assert len(said.splitlines()) == 1
    settings.validate(again)
    assert to_plain(again) == to_plain(config)
    assert replay.get_config(str(tmp_path / "run")).to_dict() == again.to_dict()


def test_a_record_of_today_lacks_nothing(tmp_path, capsys):
    write(tmp_path / "run", made(table), without=())
    read_config(tmp_path / "run")
    assert not capsys.readouterr().err


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its config is the one of the same command today."""
    config = made(vae)
    write(tmp_path / "run", config, without=("sequence", "time"))
    for name in ("environment.json", "metrics.jsonl"):
        (tmp_path / "run" / name).write_text("{}")
    open_folder(tmp_path / "run", config, overwrite=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["sequence"] == ""


def test_what_depends_on_the_data_is_asked_for(tmp_path):
    config = made(vae)
    with config.unlocked():
        config.data.name = "npz:mine.npz"
    write(tmp_path / "run", config, without=("kind",))
    with pytest.raises(UserError, match=r"says whether npz:mine\.npz is images or a table"):
        read_config(tmp_path / "run")
    write(tmp_path / "run", config, without=("sequence", "time"))
    assert read_config(tmp_path / "run").data.sequence == ""


def test_defaults_are_those_of_the_base_config():
    fields = made(vae).data.to_dict()
    for name, value in added.ADDED.items():
        assert fields[name] == value, name
