"""The lines that a result prints."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.evals import closing
from experiments.evals.base import Row
from vi_jax.fitting import _reliability, _rows, details


def test_what_fits_is_one_line_behind_its_name():
    assert _rows.lines([("verdict", "reliable")]) == f"{'verdict':<21}reliable"


def test_what_is_longer_than_a_terminal_goes_on_below_itself():
    said = "a mixture with wider copies by 5,000 values is no better; " * 3
    lines = _rows.lines([("second method", said.strip()), ("next", "none")]).split("\n")
    assert max(map(len, lines)) <= _rows.WIDTH
    assert lines[0].startswith("second method        a mixture")
    assert all(line.startswith(" " * _rows.NAME) for line in lines[1:-1])
    assert " ".join(line[_rows.NAME :] for line in lines[:-1]) == said.strip()


def test_a_row_of_nothing_keeps_its_name():
    assert _rows.lines([("method", "")]).rstrip() == "method"


def result_of(log_w, stderr):
    """What `elbo_row` reads of a result with log-weights of its samples."""
    log_w = np.asarray(log_w, float)
    evidence = np.logaddexp.reduce(log_w) - np.log(len(log_w))
    numbers = SimpleNamespace(
        elbo=log_w.mean(), elbo_stderr=stderr, log_evidence=evidence, trusted=True
    )
    normalised = log_w - np.logaddexp.reduce(log_w)
    return SimpleNamespace(diagnostics=numbers, weighted=SimpleNamespace(log_weights=normalised))


def test_an_elbo_that_one_sample_rules_is_said_without_it():
    log_w = [-12.0] * 999 + [-6_000.0]
    row = _reliability.elbo_row(result_of(log_w, 6.0))
    assert row.startswith("-17.988 ± 6.000 nats; -12.000 without 1 sample of next to no weight")


@pytest.mark.parametrize(
    ("log_w", "stderr"),
    [
        ([-12.0, -12.5] * 500, 0.01),  # none
        ([-12.0] * 999 + [-6_000.0], 0.05),  # a small error
        ([-12.0] * 900 + [-50.0] * 100, 0.4),  # not few
        ([-12.0] * 999 + [-np.inf], 0.4),  # a nan, of weight 0
    ],
)
def test_other_elbos_are_a_number_and_its_error(log_w, stderr):
    row = _reliability.elbo_row(result_of(log_w, stderr))
    assert row.endswith(f"± {stderr:.3f} nats")


def test_a_slope_that_is_rounding_is_not_told_in_its_own_errors():
    assert details._worst(np.array([-1e-5]), np.array([-127.5]), ("mu",)).startswith("below")
    told = details._worst(np.array([0.02, -0.3]), np.array([1.0, -5.0]), ("mu", "tau"))
    assert told == "-0.300 (tau, 5.0 standard errors) at the most"


def test_a_note_too_long_for_a_terminal_goes_below_its_row():
    row = Row(
        "log p(x), IWAE K = 500", "    -22.119 ± 0.188   ", "k-hat < 0.7 on 100 % of examples"
    )
    (first, below) = closing.line(row).split("\n")
    assert max(len(first), len(below)) <= closing.WIDTH
    assert below.strip() == row.note
    assert "\n" not in closing.line(row._replace(note="k-hat"))
