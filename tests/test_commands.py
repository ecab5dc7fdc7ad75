"""train, evaluate, sample and encode as real processes: what they leave, what they print, the one
sentence for each mistake.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from command_helpers import (
    OLD_RECORD,
    ROOT,
    SMALL,
    as_flags,
    environment,
    notes,
    on_a_terminal,
    small,
    write_idx,
)
from PIL import Image

from configs import replay
from experiments import config_file
from experiments.cli import UserError
from experiments.evals import report
from experiments.run.folder import open_folder
from experiments.run.record import FORMAT, read_config, to_plain
from vi_jax import files

pytest_plugins = ("command_helpers",)

LAST = SMALL["train.num_steps"]
FIGURES = (
    "learning_curves",
    "reconstructions",
    "samples",
    "interpolation",
    "kl_per_dimension",
    "latent_plane",
)


def pictures(folder):
    """The PNG files of a folder, each decoded and seen not to be one flat colour."""
    found = sorted(folder.glob("*.png"))
    for path in found:
        with Image.open(path) as image:
            assert image.format == "PNG"
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 100, path
        assert pixels.std() > 1, f"{path} is blank"
    return [path.stem for path in found]


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run, to change."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


def checkpoint_folders(folder):
    """The folders of a run's checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))


# --- what a run leaves
# ----------------------------------------------------------------------------------------------


def test_train_leaves_a_folder_worth_looking_at(trained):
    folder, _ = trained
    assert set(pictures(folder / "figures")) == set(FIGURES)
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert [int(path.name) for path in checkpoint_folders(folder)] == [100, 110, 120]
    packages = json.loads((folder / "environment.json").read_text())
    assert packages["packages"]["jax"] == jax.__version__
    assert packages["python"] == ".".join(map(str, sys.version_info[:3]))
    assert json.loads((folder / "data.json").read_text())["name"] == "digits"


def test_the_record_of_a_run_is_its_config(trained):
    """What the command resolved from its flags is what config.json says, and replays."""
    folder, _ = trained
    config = config_file.set_fields(small(), [])
    record = {"format": FORMAT, "code": {}, **to_plain(config)}
    assert json.loads((folder / "config.json").read_text()) == record
    assert replay.get_config(str(folder)).to_dict() == config.to_dict()
    assert len(as_flags()) == len(SMALL) + 1


def test_train_keeps_a_table_of_metrics(trained):
    folder, _ = trained
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, LAST + 1))
    every = {
        f"train/{name}"
        for name in ("elbo", "log_lik", "kl", "loss", "beta", "grad_norm", "learning_rate")
    }
    assert all(every | {"epoch"} <= set(row) for row in rows)
    for row in rows:
        assert row["epoch"] == pytest.approx(row["step"] / 13)
        assert row["train/loss"] == pytest.approx(-row["train/elbo"], rel=1e-5)
        assert row["train/elbo"] == pytest.approx(row["train/log_lik"] - row["train/kl"], rel=1e-5)
    evaluated = [row for row in rows if "test/elbo" in row]
    assert [row["step"] for row in evaluated] == list(range(20, LAST + 1, 20))
    health = {
        f"test/{name}"
        for name in ("elbo_stderr", "kl", "active_units", "mutual_information", "marginal_kl")
    }
    assert all(
        health | {f"test/kl_dimension_{d}" for d in range(3)} <= set(row) for row in evaluated
    )
    assert (
        evaluated[-1]["test/elbo"]
        > evaluated[0]["test/elbo"] + 2 * evaluated[0]["test/elbo_stderr"]
    ), "it did not learn"
    timing = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == [row["step"] for row in rows]
    assert all(row["seconds"] > 0 for row in timing)


def test_train_prints_its_summary(trained):
    folder, done = trained
    summary = json.loads((folder / "summary.json").read_text())
    lines = done.stdout.splitlines()
    assert lines[0] == "vae-digits: nats per example, mean ± standard error over 360 test examples"
    for title, name in (
        ("ELBO", "elbo"),
        ("log p(x), IWAE K = 4", "log_evidence"),
        ("reconstruction log p(x|z)", "log_lik"),
        ("KL(q(z|x) || p(z))", "kl"),
        ("  mutual information I(x; z)", "mutual_information"),
        ("  KL(q(z) || p(z))", "marginal_kl"),
    ):
        line = f"  {title:<34}{summary[name]['mean']:>11.3f} ± {summary[name]['stderr']:.3f}"
        assert line in done.stdout, line
        assert summary[name]["stderr"] > 0
    assert f"{summary['active_units']} of 3" in done.stdout
    assert lines[-1].endswith(f"{len(FIGURES)} figures; run folder {os.path.relpath(folder, ROOT)}")
    assert summary["num_examples"] == 360


def test_train_reports_its_progress_line_by_line(trained):
    """Where stderr is no terminal: one line at each evaluation, and when one is due."""
    _, done = trained
    line = (
        r"^step (\d+)/120 +epoch [\d.]+ +[\d.]+(?: steps)?/s +\d+:\d\d left +"
        r"(?:train )?ELBO (\S+)(?: nats| +test (?:ELBO )?(\S+) nats)$"
    )
    lines = re.findall(line, done.stderr, re.M)
    assert {20, 40, 60, 80, 100, 120} <= {int(step) for step, _, test in lines if test}
    assert (lines[0][0], lines[0][2]) == ("2", "")
    assert "? left" not in done.stderr
    assert "\r" not in done.stderr
    assert "vae-digits: 1,257 training examples (8, 8)" in done.stderr
    assert re.search(r"the first step done [\d.]+ s after the start", done.stderr)


@pytest.mark.parametrize("columns", [80, 160])
def test_the_live_line_fits_its_terminal(columns):
    """Steps, epochs, rate, time left and both bounds are seen on 80 columns too."""
    code = (
        "from experiments.run.metrics import Progress; p = Progress(start=0, total=40_000, "
        "steps_per_epoch=196);"
        "p.trained(1000, 10.0); p.show(20_000, ('ELBO', -100.125), -101.5, evaluated=True); "
        "p.say('a note'); p.close()"
    )
    text, _ = on_a_terminal([sys.executable, "-c", code], columns=columns)
    lines = [line for line in re.split(r"[\r\n]+", text) if "20,000/40,000" in line]
    assert lines
    for line in lines:
        assert len(line) < columns
        assert all(
            part in line for part in ("epoch 102", "100", "3:20 left", "-100.1", "-101.5")
        ), line
    assert "\ra note\r\n" in text


@pytest.mark.slow
def test_a_terminal_has_one_live_line(commands, copy):
    """The last 20 steps again, on a pseudo-terminal: the line is drawn over itself, and nothing
    else is.
    """
    for path in checkpoint_folders(copy)[1:]:
        shutil.rmtree(path)
    text, stdout = on_a_terminal(
        commands.argv("train", *as_flags(), f"--workdir={copy}"), columns=160
    )
    assert f"resuming the run in {copy} at step 100 of 120" in text
    steps = re.findall(
        r"\r[^\r\n]*%\|[^\r\n]*step (\d+)/120  epoch [^\r\n]* left  train ELBO [^\r\n]* nats", text
    )
    assert [int(step) for step in dict.fromkeys(steps)] == list(range(102, 121))
    assert "test ELBO -" in text
    assert "ELBO" in stdout
    assert "step 1" not in stdout


# --- evaluate and sample
# --------------------------------------------------------------------------------------------


def test_evaluate_measures_every_example_once(commands, copy):
    """The 360 test examples, by a process in batches of 256, and in batches of 7, which leave a
    rest of 3.
    """
    done = commands.ok("evaluate", f"--workdir={copy}", "--num_samples=12", "--chunk=5", "--seed=3")
    found = json.loads((copy / "evaluation-test.json").read_text())
    assert found["num_examples"] == 360
    assert found["split"] == "test"
    assert found["step"] == LAST
    assert found["num_importance_samples"] == 12
    assert len(found["kl_per_dimension"]) == len(found["active"]) == 3
    assert sum(found["kl_per_dimension"]) == pytest.approx(found["kl"]["mean"], rel=1e-4)
    assert found["log_evidence"]["mean"] > found["elbo"]["mean"]
    assert (
        found["mutual_information"]["mean"]
        <= found["max_information"]
        == pytest.approx(np.log(360))
    )
    assert (
        f"  {'log p(x), IWAE K = 12':<34}{found['log_evidence']['mean']:>11.3f} ± " in done.stdout
    )
    assert "KL per latent dimension" in done.stdout

    config = read_config(copy)
    with config.unlocked():
        config.eval.batch_size = 7
    with jax.debug_key_reuse(False):  # which takes the keys of a scan inside a vmap for used ones
        by_seven = report.evaluate(config, copy, num_samples=12, most=5, seed=3)
    for name, value in found.items():
        if isinstance(value, dict):
            assert by_seven[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    assert by_seven["num_examples"] == 360


def test_evaluate_brackets_and_refits_some_examples(commands, copy):
    flags = ("--num_samples=30", "--bracket=6", "--refit=4", "--reciprocal=5")
    done = commands.ok("evaluate", f"--workdir={copy}", *flags)
    found = json.loads((copy / "evaluation-test.json").read_text())
    sides = found["bracket"]
    assert sides["num_examples"] == 6
    noise = sides["ais"]["stderr"] + sides["importance_sampling"]["stderr"]
    assert abs(sides["ais"]["mean"] - sides["importance_sampling"]["mean"]) < noise
    noise = sides["ais_above_adaptive"]["stderr"]
    assert abs(sides["ais_above_adaptive"]["mean"]) < 4 * noise + 0.1
    assert 200 < sides["adaptive_effective"] <= 2_000
    gap = sides["simulated_gap"]
    assert -4 * gap["stderr"] - 0.01 < gap["mean"] < 0.5
    own = found["reciprocal"]
    assert own["num_examples"] == 5
    assert own["against"] == "adaptive importance sampling"
    assert abs(own["error"]["mean"]) < 4 * own["error"]["stderr"] + 0.5
    assert found["refit"]["num_examples"] == 4
    assert found["refit"]["gap"]["mean"] > found["refit"]["gap_halfway"]["mean"] - 0.1 > -0.1
    titles = ("log p(x) by annealing, 6", "upper less lower", "amortisation gap, 4")
    for title in (*titles, "log p(x) by appendix D, 5"):
        assert title in done.stdout


def test_sample_writes_pictures_and_numbers(commands, trained, tmp_path):
    out = tmp_path / "out"
    done = commands.ok("sample", f"--workdir={trained[0]}", f"--out={out}", "--num=9")
    assert set(pictures(out)) == set(FIGURES) - {"learning_curves"}
    assert f"9 prior samples; {len(FIGURES) - 1} figures and samples.npz in {out}" in done.stdout
    with np.load(out / "samples.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        assert shapes == {
            "z/z": (9, 3),
            "samples": (9, 8, 8),
            "originals": (20, 8, 8),
            "reconstructions": (20, 8, 8),
            "paths": (6, 11, 8, 8),
        }
        for name in set(shapes) - {"z/z"}:
            assert arrays[name].min() >= 0.0, name
            assert arrays[name].max() <= 1.0, name
        error = np.square(arrays["originals"] - arrays["reconstructions"]).mean()
        assert error < np.square(arrays["originals"] - arrays["originals"].mean(0)).mean() * 1.5


def test_a_damaged_checkpoint_is_passed_over_and_a_split_is_named(commands, copy):
    """A file of it is gone: storage reads in threads, each of which would print a traceback if it
    were let.
    """
    for path in (checkpoint_folders(copy)[-1] / "state" / "d").iterdir():
        path.unlink()
    done = commands.ok(
        "evaluate", f"--workdir={copy}", "--num_samples=4", "--split=validation", "--batch_size=100"
    )
    assert f"warning: the checkpoint {copy / 'checkpoints' / '120'} is damaged" in done.stderr
    assert "note: this run is at step 110 of 120." in done.stderr
    assert len(notes(done)) == 2
    found = json.loads((copy / "evaluation-validation.json").read_text())
    assert found["step"] == 110
    assert found["num_examples"] == 180
    assert "over 180 validation examples" in done.stdout
    assert not (copy / "evaluation-test.json").exists()


# --- before JAX is there
# --------------------------------------------------------------------------------------------


def cpu_seconds(run):
    """Of a child process: unlike the time on the wall, it is the same on a busy machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("name", "args", "code", "words"),
    [
        ("train", ["--help"], 0, "python -m experiments.train --config=configs/vae.py"),
        ("train", ["-h"], 0, "--overwrite: Delete the run"),
        ("train", ["--help"], 0, "\nflags:\n  --config: The config, FILE.py[:VARIANT]"),
        ("data", ["--help"], 0, "\nflags:\n  --config: The config, FILE.py[:VARIANT]"),
        ("encode", ["--help"], 0, "\n  --allow_code: Functions outside"),
        (
            "evaluate",
            ["--help"],
            0,
            "python -m experiments.evaluate --workdir=runs/NAME --num_samples=50000",
        ),
        ("sample", ["--help"], 0, "python -m experiments.sample --workdir=runs/NAME --num=256"),
        ("encode", ["--help"], 0, "python -m experiments.encode --workdir=runs/NAME --split=all"),
        ("impute", ["--help"], 0, "python -m experiments.impute --workdir=runs/NAME --split=test"),
        ("train", ["--config=configs/vae.py:mnits"], 2, "no variant 'mnits'"),
        (
            "train",
            ["--config=configs/vae.py", "--config.model.network.activation=tahn"],
            2,
            "did you mean 'tanh'?",
        ),
        ("evaluate", ["--workdir=not/there"], 2, "there is no folder not/there"),
    ],
)
def test_help_and_config_errors_answer_before_jax_is_imported(name, args, code, words):
    command = [sys.executable, "-X", "importtime", "-m", f"experiments.{name}", *args]
    done, seconds = cpu_seconds(
        lambda: subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
    )
    imported = set(re.findall(r"^import time:.*\|\s+(\S+)$", done.stderr, re.M))
    assert "absl.flags" in imported, "this test does not see the imports"
    assert not {"jax", "flax", "optax", "numpyro", "matplotlib", "sklearn", "orbax"} & imported
    assert done.returncode == code
    assert words in (done.stderr if code else done.stdout)
    assert seconds < 1.0


# --- mistakes
# -------------------------------------------------------------------------------------------------

CONFIG = "--config=configs/vae.py"
OLD = "{old}/config.json is of a version of vi_jax before configs named functions, which this one"


def mistakes():
    """Name: (command, arguments, words of the answer); {run} is a copy of the trained run, {tmp} an
    empty folder.
    """
    train = {
        "no config": ([], "--config is missing; try --config=configs/vae.py"),
        "unknown variant": (
            ["--config=configs/vae.py:minst"],
            "no variant 'minst' (did you mean 'mnist'?); it has digits, mnist",
        ),
        "unknown config": (
            ["--config=configs/vea.py"],
            "no config file configs/vea.py (did you mean 'configs/vae.py'?); there are configs/",
        ),
        "unknown field": (
            [CONFIG, "--config.optim.learning_rat=1"],
            "adam has no argument 'learning_rat' (did you mean 'learning_rate'?)",
        ),
        "unknown flag": ([CONFIG, "--workdri=x"], "'workdri'. Did you mean: workdir"),
        "unknown name": (
            [CONFIG, "--config.model.likelihood=bernouli"],
            "did you mean 'bernoulli'?",
        ),
        "unknown data": ([CONFIG, "--config.data.name=mnits"], "Did you mean 'mnist'?"),
        "wrong type": (
            [CONFIG, "--config.train.num_steps=many"],
            "config.train.num_steps is 'many'; it has to be a whole number",
        ),
        "negative size": (
            [CONFIG, "--config.train.batch_size=-1"],
            "config.train.batch_size is -1; it has to be greater than 0",
        ),
        "stray argument": ([CONFIG, "extra"], "unexpected argument 'extra'"),
        "no replay": (
            ["--config=configs/replay.py:{tmp}/none.json"],
            "there is no file {tmp}/none.json",
        ),
        "workdir is a file": (
            [CONFIG, "--workdir={run}/config.json"],
            "--workdir={run}/config.json is a regular file",
        ),
        "unwritable": (
            [CONFIG, "--workdir={run}/config.json/sub"],
            "--workdir={run}/config.json/sub cannot be used",
        ),
        "foreign folder": (
            [CONFIG, "--workdir={run}/figures"],
            "{run}/figures is not empty and holds no run",
        ),
        "another config": (
            [*as_flags(seed=1, model__network__hidden=(9,)), "--workdir={run}"],
            "of another config: model.network.hidden was [8] and is [9]; seed was 0 and is 1. Name "
            "another folder, or --overwrite",
        ),
        "no data folder": (
            [CONFIG + ":mnist", "--config.data.data_dir={tmp}/none", "--workdir={tmp}/run"],
            "config.data.data_dir='{tmp}/none' does not exist",
        ),
        "data file cut short": (
            [CONFIG + ":mnist", "--config.data.data_dir={idx}", "--workdir={tmp}/run"],
            "cut short or damaged",
        ),
        "wrong split": (
            [CONFIG, "--config.data.train=trian", "--workdir={tmp}/run"],
            "config.data.train",
        ),
        "data that changed": (
            [*as_flags(), "--workdir={changed}"],
            "the data have changed since the run in {changed} began",
        ),
    }
    evaluate = {
        "no workdir": ([], "--workdir is missing; see --help"),
        "missing workdir": (["--workdir={tmp}/none"], "there is no folder {tmp}/none"),
        "no run": (["--workdir={tmp}"], "{tmp} holds no run: it has no config.json"),
        "cut config": (["--workdir={cut}"], "{cut}/config.json cannot be read"),
        "hand-made config": (
            ["--workdir={odd}"],
            "config.train.batch_size is 'ten'; it has to be a whole number",
        ),
        "no checkpoint": (
            ["--workdir={bare}"],
            "{bare} has no checkpoint yet; train first, with python -m experiments.train --config=",
        ),
        "no checkpoint is good": (
            ["--workdir={broken}"],
            "no checkpoint in {broken}/checkpoints can be read (steps 100, 110",
        ),
        "wrong split": (["--workdir={run}", "--split=tset"], "did you mean 'test'?"),
        "no such checkpoint": (
            ["--workdir={run}", "--checkpoint=7"],
            "--checkpoint=7 is none of latest, best and the steps",
        ),
        "no draws": (["--workdir={run}", "--num_samples=0"], "--num_samples=0"),
        "wrong flag": (["--workdir={run}", "--num_sample=1"], "Did you mean: num_samples"),
    }
    sample = {
        "missing workdir": (["--workdir={tmp}/none"], "there is no folder {tmp}/none"),
        "unwritable out": (
            ["--workdir={run}", "--out={run}/config.json/sub"],
            "--out={run}/config.json/sub cannot be written",
        ),
        "no number": (["--workdir={run}", "--num=few"], "--num=few"),
    }
    encode = {
        "missing workdir": (["--workdir={tmp}/none"], "there is no folder {tmp}/none"),
        "unwritable out": (
            ["--workdir={run}", "--out={run}/config.json/sub"],
            "--out={run}/config.json/sub cannot be written",
        ),
        "wrong split": (
            ["--workdir={run}", "--out={tmp}/a", "--split=tset"],
            "--split=tset is none of train, validation, test and all",
        ),
        "no checkpoint": (["--workdir={bare}", "--out={tmp}/b"], "{bare} has no checkpoint yet"),
    }
    impute = {
        "missing workdir": (["--workdir={tmp}/none"], "there is no folder {tmp}/none"),
        "a share of images": (
            ["--workdir={run}", "--out={tmp}/c", "--missing=100"],
            "--missing is at most 99 per cent of an image and --split one split; got 100 and test.",
        ),
        "too few samples": (["--workdir={run}", "--num_samples=24"], "--num_samples=24"),
    }
    replay_cases: dict = {}
    for cases in (evaluate, sample, encode, impute, replay_cases):
        cases["an older version"] = (["--workdir={old}"], OLD)
    train["an older version"] = ([*as_flags(), "--workdir={old}"], OLD)
    train["a record of an older version"] = (["--config=configs/replay.py:{old}"], OLD)
    groups = {"train": train, "evaluate": evaluate, "sample": sample, "replay": replay_cases}
    groups |= {"encode": encode, "impute": impute}
    return {
        f"{command}: {what}": (command, *case)
        for command, cases in groups.items()
        for what, case in cases.items()
    }


@pytest.fixture(scope="module")
def places(trained, tmp_path_factory):
    """The folders of the mistakes."""
    base = tmp_path_factory.mktemp("places")
    names = ("run", "changed", "cut", "odd", "old", "bare", "broken")
    folders = {name: Path(shutil.copytree(trained[0], base / name)) for name in names}
    folders |= {name: base / name for name in ("tmp", "idx")}
    folders["tmp"].mkdir()
    folders["idx"].mkdir()
    write_idx(folders["idx"])
    images = folders["idx"] / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    config = json.loads((folders["run"] / "config.json").read_text())
    (folders["changed"] / "data.json").write_text(
        json.dumps({"fingerprint": "0123", "source": "elsewhere"})
    )
    (folders["cut"] / "config.json").write_text(json.dumps(config)[:100])
    (folders["odd"] / "config.json").write_text(
        json.dumps({**config, "train": {**config["train"], "batch_size": "ten"}})
    )
    files.write_json(folders["old"] / "config.json", OLD_RECORD)
    shutil.rmtree(folders["bare"] / "checkpoints")
    for path in folders["broken"].rglob("manifest.ocdbt"):
        path.write_bytes(b"damaged")
    return folders


@pytest.mark.cases(
    rest="slow",
    integration=[
        "train: no config",
        "train: unknown variant",
        "train: unknown field",
        "train: unknown name",
        "train: unwritable",
        "train: foreign folder",
        "train: another config",
        "train: no data folder",
        "train: data file cut short",
        "evaluate: no run",
        "evaluate: cut config",
        "evaluate: no checkpoint is good",
        "evaluate: wrong split",
        "sample: missing workdir",
        "encode: unwritable out",
        "impute: too few samples",
        "replay: an older version",
    ],
)
@pytest.mark.parametrize("mistake", mistakes())
def test_a_mistake_is_answered_in_one_sentence(mistake, commands, places):
    command, args, words = mistakes()[mistake]
    done = commands(command, *(arg.format_map(places) for arg in args))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert words.format_map(places) in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    expected = ("error: ", "warning: ", "vae-")
    more = [line for line in notes(done) if not line.startswith(expected)]
    assert not more, "more than a sentence"
    assert done.stdout == ""


def test_a_refused_run_is_left_as_it_was(places, trained):
    """After all the mistakes above (in the order of this file)."""
    for name in ("metrics.jsonl", "config.json", "summary.json"):
        assert (places["run"] / name).read_bytes() == (trained[0] / name).read_bytes()
    assert len(checkpoint_folders(places["run"])) == 3


def test_overwrite_begins_anew(copy):
    """Even where the config of the run that is deleted cannot be read."""
    (copy / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        open_folder(copy, small(seed=1), overwrite=False)
    assert open_folder(copy, small(seed=1), overwrite=True) is False
    assert {path.name for path in copy.iterdir()} == {"config.json", "environment.json", "lock"}
    assert read_config(copy).seed == 1
