"""Trackers of the user's own: what they are handed, and what their errors do."""

import json
import re
import sys
from pathlib import Path

import pytest
from command_helpers import small, stub_evaluations

from experiments.cli import UserError
from experiments.evals import closing
from experiments.run import single
from experiments.run.metrics import MetricsLog
from experiments.run.tracker import Trackers

CONFIG = small()
MINE = """
calls = []


class Tracker:
    def __init__(self, fail):
        self.fail = fail

    def log(self, step, metrics):
        calls.append(("log", step, metrics))
        if self.fail == "log":
            raise RuntimeError("no network")

    def figure(self, name, path):
        calls.append(("figure", name, path))

    def close(self):
        calls.append(("close",))


def good(name, folder, config, from_step):
    calls.append(("open", name, folder, config["seed"], from_step))
    return Tracker("")


def failing():
    return Tracker("log")


def refused(name):
    raise RuntimeError("no key")


def empty():
    return object()
"""


@pytest.fixture
def mine(tmp_path):
    """The name of a file of trackers."""
    path = tmp_path / f"trackers_{tmp_path.name}.py"
    path.write_text(MINE)
    return str(path)


def calls_of(path):
    (module,) = [m for m in sys.modules.values() if getattr(m, "__file__", None) == path]
    return module.calls


def test_rows_and_figures_are_handed_on(mine, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "b.png").write_bytes(b"")
    (tmp_path / "figures" / "a.png").write_bytes(b"")
    with Trackers(f"{mine}:good") as trackers:
        tracker = trackers.begin(CONFIG, tmp_path, from_step=30)
        log = MetricsLog(tmp_path, from_step=0, tracker=tracker)
        log.write({"step": 40, "elbo": -1.5, "alarm": "x"}, {"seconds": 2.0})
        log.close()
    assert calls_of(mine) == [
        ("open", CONFIG.name, str(tmp_path), CONFIG.seed, 30),
        ("log", 40, {"elbo": -1.5, "seconds": 2.0}),
        ("figure", "a", str(tmp_path / "figures" / "a.png")),
        ("figure", "b", str(tmp_path / "figures" / "b.png")),
        ("close",),
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["elbo"] == -1.5


def test_a_run_that_fails_closes_its_tracker_without_figures(mine, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"")

    def run():
        with Trackers(f"{mine}:good") as trackers:
            trackers.begin(CONFIG, tmp_path, from_step=0)
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert [call[0] for call in calls_of(mine)] == ["open", "close"]


def test_an_error_is_one_warning_and_the_run_goes_on(mine, tmp_path, capfd):
    with Trackers(f"{mine}:failing") as trackers:
        tracker = trackers.begin(CONFIG, tmp_path, from_step=0)
        log = MetricsLog(tmp_path, from_step=0, tracker=tracker)
        for step in (10, 20, 30):
            log.write({"step": step, "elbo": 0.0})
        log.close()
    assert [call[0] for call in calls_of(mine)] == ["log", "close"]
    said = capfd.readouterr().err
    assert said.count("failed in log (RuntimeError: no network); the run goes on without it") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("refused", "RuntimeError: no key. Mend it, or train without it"),
        ("empty", "returned object without log, figure, close; a tracker has"),
    ],
)
def test_an_error_at_the_start_is_a_sentence(mine, tmp_path, function, said):
    with pytest.raises(UserError, match=said), Trackers(f"{mine}:{function}") as trackers:
        trackers.begin(CONFIG, tmp_path, from_step=0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mlflow", "give a function of your own, FILE.py:FUNCTION"),
        ("gone.py:mine", "gone.py"),
        ("{mine}:nope", "nope"),
    ],
)
def test_a_name_of_nothing_is_refused_before_the_run(mine, name, said):
    with pytest.raises(UserError, match=said):
        Trackers(name.format(mine=mine))


def test_no_tracker_is_asked_for(tmp_path):
    with Trackers() as trackers:
        assert trackers.begin(CONFIG, tmp_path, from_step=0) is None


@pytest.mark.integration
def test_a_run_hands_on_the_rows_of_its_metrics(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(closing, "finish", lambda *args: {})
    stub_evaluations(monkeypatch, lambda state: 0.0)
    folder = tmp_path / "run"
    folder.mkdir()
    with Trackers(f"{mine}:good") as trackers:
        single.train(small(), folder, resumed=False, trackers=trackers)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [call for call in calls_of(mine) if call[0] == "log"]
    assert [step for _, step, _ in logged] == [row["step"] for row in rows]
    for (_, _, metrics), row in zip(logged, rows, strict=True):
        for name, value in row.items():
            if name not in ("step", "alarm") and isinstance(value, int | float):
                assert metrics[name] == value


# --- the examples of docs/runs.md


class Stand:
    """A stand-in for a library: it notes what is called."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **options):
            self.calls.append((name, args, options))
            return self

        return call


@pytest.mark.parametrize(
    ("library", "logged", "ended"),
    [
        ("mlflow", ("log_metrics", ({"elbo": -1.0},), {"step": 5}), "end_run"),
        ("wandb", ("log", ({"elbo": -1.0},), {"step": 5}), "finish"),
    ],
)
def test_the_examples_run_with_stand_ins(library, logged, ended, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "runs.md").read_text()
    (code,) = re.findall(r"```python\n(# trackers\.py\n.*?)```", text, re.S)
    (tmp_path / "trackers_of_docs.py").write_text(code)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "samples.png").write_bytes(b"")
    stand = Stand()
    monkeypatch.setitem(sys.modules, library, stand)
    with Trackers(f"{tmp_path}/trackers_of_docs.py:{library}") as trackers:
        tracker = trackers.begin(CONFIG, tmp_path, from_step=0)
        tracker.log(5, {"elbo": -1.0})
    assert logged in stand.calls
    assert stand.calls[-1][0] == ended
    said = str(stand.calls)
    assert "samples.png" in said
    assert CONFIG.name in said
