"""benchmarks.large: errors and the table, of rows made up here."""

import pytest

large = pytest.importorskip("benchmarks.large")

TRUTH = {"mean": {"a": [1.0, 2.0], "b": [0.0]}, "sd": {"a": [0.5, 1.0], "b": [2.0]}, "r_hat": 1.01}


def test_the_error_is_that_of_the_worst_mean_in_standard_deviations():
    assert large.error({"mean": {"a": [1.1, 2.0], "b": [0.2]}}, TRUTH) == pytest.approx(0.2)
    assert large.error({"mean": {"a": [1.0, float("nan")], "b": [0.0]}}, TRUTH) == float("inf")
    assert large.error({"mean": {}}, TRUTH) == float("inf")


def test_what_was_not_run_failed_or_has_no_samples_is_told():
    name = next(iter(large.MODELS))
    row = {
        "model": name,
        "r_hat": 1.01,
        "vi": {"error": 0.04, "seconds": 12.3, "method": "m", "verdict": "v", "latents": 503},
        "autoguide": {"error": None, "seconds": 1.0},
        "pathfinder": {"failed": "no module"},
        "nuts": {"error": float("inf"), "seconds": 1.0},
    }
    lines = large.table([row]).split("\n")
    assert len(lines) == 2 + len(large.MODELS)
    expected = f"| {name} | 503 | m: v | 0.04 (12 s) | no truth | failed | no samples | 1.010 |"
    assert lines[2] == expected
    assert lines[3].count("not run") == 7
