"""benchmarks.papers: its rows are configs, its page says what was measured, and no number is chosen
by test data.
"""

import importlib
import json
import math

import pytest
from command_helpers import ROOT

from experiments import config_file, settings
from experiments.overrides import Override

papers = pytest.importorskip("benchmarks.papers")
papers_page = importlib.import_module("benchmarks.papers_page")
papers_rows = importlib.import_module("benchmarks.papers_rows")
papers_run = importlib.import_module("benchmarks.papers_run")
ROWS = papers_rows.ROWS


def found(mean, stderr=0.1, **more):
    """What is read of a run."""
    return {
        "value": {"mean": mean, "stderr": stderr},
        "steps": 1000,
        "cpu_minutes": 2.0,
        "device": "some processor",
        "commit": "abc",
        "binarisation": "dynamic",
        "num_samples": 5000,
        "reliable_share": 0.5,
        "sources": "0",
        **more,
    }


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_a_valid_config_and_says_what_is_published(name):
    row = ROWS[name]
    (file, variant) = row.config.split(":")
    config = importlib.import_module(f"configs.{file}").get_config(variant)
    given = [Override(*field.split("=", 1)) for field in row.fields]
    config = config_file.set_fields(config, given)
    settings.validate(config)
    papers_run.require_honest(name, config.to_dict())
    assert row.confidence in papers_rows.CONFIDENCES
    assert row.against in ("", *ROWS)
    assert row.run_of in ("", *ROWS)
    if row.run_of:  # the run that is there is that of this row, too
        assert papers_run.fingerprint(row) == papers_run.fingerprint(ROWS[row.run_of])
    sign = -1.0 if row.is_higher_better else 1.0
    if not math.isnan(row.passes):
        assert sign * row.beats <= sign * row.passes
    models = {path.stem for path in (ROOT / "vi_jax" / "models").glob("*.py")}
    sources = papers_run.sources_of(config)
    assert any(source.startswith("vi_jax/models/") for source in sources)
    assert config.model.name in models
    assert any(source.startswith("vi_jax/losses/") for source in sources)


def test_the_hash_of_a_row_is_that_of_its_config_and_code():
    row = ROWS["iwae_k1"]
    same = papers_run.fingerprint(row)
    assert same == papers_run.fingerprint(row._replace(what="other words", seeds=(7,)))
    assert same != papers_run.fingerprint(row._replace(fields=()))
    assert same != papers_run.fingerprint(row._replace(config="iwae:one_layer"))


def test_a_checkpoint_chosen_on_test_data_is_refused():
    config = {"train": {"keep_best": True}, "eval": {"split": "test"}}
    with pytest.raises(ValueError, match="chosen on test data"):
        papers_run.require_honest("some", config)
    papers_run.require_honest("some", {**config, "eval": {"split": "validation"}})


def test_the_gain_of_imputation_is_the_lesser_one(tmp_path):
    def gain(over, mean, stderr):
        return {"log_prob_above": {over: {"mean": mean, "stderr": stderr}}}

    found = {
        "metropolis": gain("pseudo_gibbs", 0.3, 0.1),
        "pseudo_gibbs": gain("marginal", 0.8, 0.1),
    }
    (tmp_path / "imputed-80").mkdir()
    (tmp_path / "imputed-80" / "imputed.json").write_text(json.dumps(found))
    row = ROWS["imputation_80"]
    measured = papers_run.impute(row, tmp_path)
    value = papers_run.value_of(row, measured, tmp_path)
    assert value["mean"] == pytest.approx(3.0)


def test_seeds_are_of_the_field_that_the_row_names():
    flags = papers_run.config_flags(ROWS["m1_m2"], 3, "DIR")
    assert "--config.data.label_seed=3" in flags
    assert papers_run.config_flags(ROWS["aevb"], 3, "")[1] == "--config.seed=3"


def test_nats_are_turned_round_and_other_numbers_are_not(tmp_path):
    row = ROWS["gated_vae"]
    evaluation = {"log_evidence": {"mean": -84.0, "stderr": 0.2}, "test_error": 0.05}
    assert papers_run.value_of(row, evaluation, tmp_path) == {"mean": 84.0, "stderr": 0.2}
    other = papers_run.value_of(row._replace(measure="test_error"), evaluation, tmp_path)
    assert other["mean"] == 0.05
    in_per_cent = row._replace(measure="test_error", unit=100.0)
    assert papers_run.value_of(in_per_cent, evaluation, tmp_path)["mean"] == 5.0
    nested = {"metropolis": {"coverage": {"mean": 0.9, "stderr": 0.01}}}
    covered = row._replace(measure="metropolis.coverage", unit=100.0)
    assert papers_run.value_of(covered, nested, tmp_path) == {"mean": 90.0, "stderr": 1.0}
    with pytest.raises(KeyError, match="no 'mig'"):
        papers_run.value_of(row._replace(measure="mig"), evaluation, tmp_path)
    lines = [{"step": 1, "train/elbo": -9.0}, {"step": 2, "train/elbo": -8.0}, {"step": 2}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    trained = papers_run.value_of(row._replace(measure="train/elbo"), evaluation, tmp_path)
    assert trained["mean"] == 8.0


def test_the_page_has_every_row_and_what_was_not_run_says_so():
    measured = {
        "aevb": {"0": found(94.0), "1": found(96.0), "2": found(95.0)},
        "iwae_k1": {"0": found(87.0, 0.3)},
        "iwae_k5_over_k1": {"0": found(85.5, 0.4)},
        "gated_vae": {"0": found(85.0, elbo={"mean": -88.0, "stderr": 0.1})},
    }
    text = papers_page.describe(measured)
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    table = text.split("\n\n")[0]
    assert set(ROWS) == {line.split("`")[1] for line in table.splitlines()[2:]}
    assert "**95.00** ± 0.58, passes" in table  # over seeds: sqrt(1 / 3)
    assert "**1.50** ± 0.50, beats" in table  # 87.0 - 85.5
    assert "**85.00** ± 0.10, short" in table
    assert "not run" in lines["gated_flow"]
    assert "88.00 ± 0.10" in text.split("\n\n")[1]


def test_a_row_without_goals_is_not_judged():
    row = ROWS["figure2_mnist_3_wake_sleep"]
    assert papers_page.verdict(row, 1.0) == ""
    assert papers_page.verdict(row._replace(beats=0.5), 1.0) == "short"


def test_standard_errors_and_curves_are_part_of_the_goal():
    name = "figure2_mnist_3"
    row = ROWS[name]
    sleep = found(120.0, 0.5, curve=[[50_000, -150.0], [100_000, -130.0], [200_000, -120.0]])
    ours = found(118.5, 0.5, curve=[[50_000, -160.0], [100_000, -131.0], [200_000, -118.5]])
    measured = {name: {"0": ours}, row.against: {"0": sleep}}
    assert papers_page.points(name, measured) == (1, 2)
    (mean, stderr) = papers_page.value(name, measured)
    assert papers_page.verdict(row, mean, stderr, (1, 2)) == "passes"
    assert papers_page.verdict(row, mean, stderr, (2, 2)) == "beats"
    assert papers_page.verdict(row, mean, mean, (2, 2)) == "short"  # one standard error
    assert "passes; above at 1 of 2 points" in papers_page.describe(measured)


def test_a_row_is_compared_with_what_the_other_measured_itself():
    names = ("full_vb_mnist_1000_point", "full_vb_mnist_1000", "full_vb_mnist_1000_early")
    values = (140.0, 130.0, 124.0)
    measured = {name: {"0": found(each, 0.0)} for name, each in zip(names, values, strict=True)}
    assert papers_page.value(names[1], measured) == (10.0, 0.0)
    assert papers_page.value(names[2], measured) == (6.0, 0.0)
    assert papers_page.verdict(ROWS[names[1]], 10.0, 1.0) == "beats"
    assert papers_page.verdict(ROWS[names[1]], 10.0, 4.0) == "short"
    assert papers_page.verdict(ROWS[names[2]], 6.0) == "short"


def test_a_goal_may_be_one_of_size():
    row = ROWS["figure3_mnist"]
    assert papers_page.verdict(row, -0.05) == "beats"
    assert papers_page.verdict(row, -0.5) == "short"
    evaluation = {"bracket": {"ais_above_adaptive": {"mean": -0.5, "stderr": 0.1}}}
    value = papers_run.value_of(row, evaluation, ROOT)
    assert value == {"mean": -0.5, "stderr": 0.1}
    with pytest.raises(KeyError, match="has no 'bracket"):
        papers_run.value_of(row, {"bracket": {}}, ROOT)


def test_a_curve_is_read_in_training_samples(tmp_path):
    lines = [{"step": 10, "test/elbo": -9.0, "test/elbo_stderr": 1.0}, {"step": 15, "other": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = {"eval": {"split": "test"}, "train": {"batch_size": 100}}
    assert papers_run.curve_of(tmp_path, config) == [[1000, -9.0]]


def test_a_difference_needs_both_rows():
    assert papers_page.value("iwae_k5_over_k1", {"iwae_k5_over_k1": {"0": found(85.5)}}) is None


def test_the_page_in_docs_is_that_of_what_was_measured():
    measured = json.loads(papers.MEASURED.read_text())
    assert papers_page.describe(measured) in papers_page.PAGE.read_text()
    assert set(measured) <= set(ROWS)
