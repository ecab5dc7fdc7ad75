"""The table of spike trains says what was measured, and of which command."""

import importlib

import pytest
from command_helpers import ROOT

neural = pytest.importorskip("benchmarks.neural")
report = pytest.importorskip("benchmarks.report")

MEASURED = {
    "plds": {
        "rate_r2": 0.8835,
        "latent_r2": [0.953, 0.939, 0.865],
        "co_bps": {"mean": 0.4879, "stderr": 0.01},
        "co_bps_share": 0.9,
        "cpu_s": 169.2,
    },
    "trust": {"reliable_share": 0.992, "above": 0.0312, "cpu_s": 20.0},
    "slds": {
        "states_share": 0.981,
        "of_starts": 3,
        "num_starts": 16,
        "largest_fall": 0.0,
        "cpu_s": 50.0,
    },
}


def test_the_table_has_what_was_measured():
    text = neural.describe(MEASURED)
    assert "| 0.8835; 0.953 0.939 0.865; 0.4879 ± 0.0100 (90 % of the true rates') | 169 |" in text
    assert "| 99.2 % of the trials; 0.031 nats in the mean | 20 |" in text
    assert "| 98.1 %, and 95 % of 3 of 16 starts; the ELBO falls by 0 nats at most | 50 |" in text
    assert "`calibration` |" not in text
    assert len(neural.ROWS) <= report.MAX_ROWS


def test_commands_name_configs_that_there_are():
    for row in neural.ROWS.values():
        words = [word for word in row.command.split() if word.startswith("--config=")]
        for word in words:
            (path, _, variant) = word.removeprefix("--config=").partition(":")
            assert (ROOT / path).exists()
            module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            assert not variant or variant in module.VARIANTS
