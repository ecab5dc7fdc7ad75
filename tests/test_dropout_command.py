"""A model that trains with dropout, by the command: its training metric is called objective."""

import json

import pytest

pytestmark = pytest.mark.slow
pytest_plugins = ["command_helpers"]
SMALL = (
    "model.num_latents=4",
    "model.width=4",
    "model.generator_width=4",
    "model.num_factors=3",
    "train.batch_size=20",
    "train.num_steps=10",
    "train.log_every=5",
    "train.eval_every=10",
    "train.checkpoint_every=10",
    "objective.beta.num_steps=2",
    "optim.learning_rate.warmup_steps=2",
    "eval.num_samples=1",
    "eval.num_importance_samples=2",
    "data.train=train[:40]",
    "data.test=test[:10]",
)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_metric_of_training_is_called_objective(commands, tmp_path, replicas):
    place = tmp_path / "run"
    fields = [f"--config.{field}" for field in (*SMALL, f"replicas={replicas}")]
    done = commands.ok("train", "--config=configs/neural/lfads.py", *fields, f"--workdir={place}")
    assert "OBJECTIVE" in done.stderr
    assert "ELBO" in done.stdout
    metrics = place / "metrics.jsonl" if replicas == 1 else place / "replica_0" / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert all("train/objective" in row and "train/elbo" not in row for row in rows)
    assert "test/elbo" in rows[-1]
