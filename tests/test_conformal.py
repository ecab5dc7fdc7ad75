"""Conformal calibration of intervals: its finite-sample guarantee, and intervals of imputed entries
that a model has too narrow.
"""

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.data.columns import Column, Table
from experiments.evals import calibrating, hiding, imputing
from vi_jax.diagnostics import conformal


@pytest.mark.parametrize(
    ("num", "coverage"), [(9, 0.9), (10, 0.9), (57, 0.9), (19, 0.5), (99, 0.8)]
)
def test_one_more_of_exchangeable_values_is_covered_as_often_as_the_theorem_says(num, coverage):
    """Each of n + 1 values in turn is the new one: exactly ceil((n + 1) c) of them are covered."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=num + 1)
    median = rng.normal(size=num + 1)
    lower = median - rng.uniform(0.1, 1.0, num + 1)
    upper = median + rng.uniform(0.1, 1.0, num + 1)
    covered = 0
    for new in range(num + 1):
        others = np.arange(num + 1) != new
        found = conformal.calibrate(
            *(x[others], lower[others], median[others], upper[others]), coverage=coverage
        )
        low, high = conformal.widened(lower[new], median[new], upper[new], found.factor)
        # the new one is often the very end of its interval
        covered += low - 1e-12 <= x[new] <= high + 1e-12
    assert covered == conformal.rank(num, coverage)
    assert covered / (num + 1) >= coverage
    assert covered / (num + 1) < coverage + 1 / (num + 1) + 1e-12


def test_ranks_are_those_of_the_theorem_and_too_few_scores_are_refused():
    assert [conformal.rank(num, 0.9) for num in (9, 10, 19, 99, 1000)] == [9, 10, 18, 90, 901]
    with pytest.raises(ValueError, match="at least 9 scores; got 8"):
        conformal.rank(8, 0.9)
    with pytest.raises(ValueError, match="between 0 and 1; got 1"):
        conformal.rank(50, 1.0)


def test_the_factor_undoes_a_scale_that_is_wrong():
    """Intervals of N(0, s) that are taken for those of N(0, 1): the factor tends to s."""
    rng = np.random.default_rng(1)
    end = stats.norm.ppf(0.95)
    x = 1.7 * rng.normal(size=20_000)
    each = np.full(len(x), end)
    found = conformal.calibrate(x, -each, 0 * each, each, coverage=0.9)
    # the standard error of a quantile, over the density of |x| / end there
    stderr = np.sqrt(0.9 * 0.1 / len(x)) / (2 * stats.norm.pdf(end) * end / 1.7)
    assert abs(found.factor - 1.7) < 5 * stderr
    own = 2 * stats.norm.cdf(end / 1.7) - 1
    assert abs(found.own_coverage - own) < 5 * np.sqrt(own * (1 - own) / len(x))


def test_whole_numbers_are_within_ends_that_are_padded():
    """An interval of one number, 3..3, holds the numbers up to d beyond at a factor of 2 d."""
    three = np.full(4, 3.0)
    found = conformal.scores(np.array([3.0, 4.0, 5.0, 1.0]), three, three, three, padding=0.5)
    np.testing.assert_allclose(found, [0.0, 2.0, 4.0, 4.0])
    np.testing.assert_array_equal(conformal.scores([3.0, 4.0], 3.0, 3.0, 3.0), [0.0, np.inf])
    assert conformal.widened(3.0, 3.0, 3.0, 2.0, padding=0.5) == (2.0, 4.0)


def test_values_of_a_group_count_together():
    """Groups of one: the plain standard error; the same value m times over: that of the groups."""
    x = np.random.default_rng(7).normal(size=30)
    plain = x.std(ddof=1) / np.sqrt(30)
    assert conformal.clustered_stderr(x, np.arange(30)) == pytest.approx(plain)
    assert conformal.clustered_stderr(np.repeat(x, 4), np.repeat(np.arange(30), 4)) == (
        pytest.approx(plain)
    )
    assert conformal.clustered_stderr(x, np.zeros(30)) == np.inf


# --- of imputed entries


COLUMNS = (
    Column("real", "gaussian", "", loc=5.0, scale=2.0),
    Column("log", "log_normal", "", loc=1.0),
    Column("count", "poisson", ""),
    Column("class", "categorical", "", levels=("a", "b")),
)
TABLE = Table(COLUMNS)


def entries_of(row, column, truth_scale):
    """Entries of rows of z ~ N(0, 1), whose intervals are those of a normal of truth_scale SDs."""
    half = truth_scale * stats.norm.ppf(0.95)
    ends = np.array([-half, 0.0, half])
    by_column = np.stack([5.0 + 2.0 * ends, np.exp(1.0 + ends), np.round(40 + 6 * ends), 0 * ends])
    low, median, high = by_column[column].T
    num = len(row)
    fields = {name: np.zeros(num) for name in imputing.Entries._fields}
    fields |= {"row": row, "column": column, "low": low, "median": median, "high": high}
    return imputing.Entries(**{**fields, "draws": np.zeros((num, 1))})


def rows(num, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num, 3))
    data = np.stack([5 + 2 * z[:, 0], np.exp(1 + z[:, 1]), np.rint(40 + 6 * z[:, 2])], axis=1)
    return np.concatenate([data, rng.integers(2, size=(num, 1))], axis=1)


def narrow(key, params, x, lengths):
    """A model whose intervals are 0.6 times as wide as they have to be."""
    row, column = np.nonzero(~x["observed"])
    return entries_of(row, column, 0.6)


@pytest.mark.parametrize("share_complete", [0.0, 1.0])
def test_intervals_of_a_model_that_is_too_sure_cover_nine_tenths(share_complete):
    data = rows(600, 2)
    rng = np.random.default_rng(3)
    observed = rng.random(data.shape) > 0.3
    observed[: int(share_complete * len(data))] = True
    x = {"values": TABLE.to_model(data, observed), "observed": observed}
    holes = rng.random((200, 4)) < 0.3
    is_there = hiding.is_there_of(observed, None)
    hidden = hiding.hide(0, observed, is_there, holes, TABLE, 1_200)
    assert not (hidden.is_hidden & ~observed[hidden.example]).any()
    found = calibrating.calibrate(narrow, None, None, x, None, hidden, TABLE)
    assert abs(found.own_coverage - 0.68) < 0.04  # of N(0, 1) within 0.6 x 1.645
    np.testing.assert_allclose(found.factor[:2], 1 / 0.6, rtol=0.2)  # three standard errors
    assert found.factor[3] == 1.0
    # new rows
    new = rows(4_000, 4)
    row, column = np.divmod(np.arange(new.size), 4)
    entries = calibrating.widen(entries_of(row, column, 0.6), found, TABLE)
    truth = new[row, column]
    inside = (entries.low <= truth) & (truth <= entries.high)
    for d in range(3):
        assert 0.855 < inside[column == d].mean() < 0.945  # the same
    assert (entries.low[column == 2] == np.rint(entries.low[column == 2])).all()
    assert (entries.low[column == 3] == 0.0).all()  # classes have no interval, and keep theirs
    assert f"{found.num_hidden:,} hidden entries" in found.in_words()


def test_one_entry_of_a_row_is_hidden_at_a_time_in_columns_that_lack_some():
    observed = np.random.default_rng(5).random((50, 4)) > 0.5
    holes = np.array([[True, False, False, True]] * 3)
    hidden = hiding.hide(0, observed, hiding.is_there_of(observed, None), holes, TABLE, 1_000)
    assert (hidden.is_hidden.sum(1) == 1).all()
    assert len(hidden.example) == observed[:, 0].sum()  # the classes have no interval
    assert hidden.is_hidden[:, 0].all()


def test_of_sequences_no_padding_is_hidden():
    table = TABLE._replace(num_steps=6)
    lengths = np.arange(40) % 6 + 1
    observed = np.arange(6)[:, None] < lengths[:, None, None]
    observed = np.broadcast_to(observed, (40, 6, 4))
    holes = np.random.default_rng(6).random((10, 8, 4)) < 0.4
    is_there = hiding.is_there_of(observed, lengths)
    hidden = hiding.hide(0, observed, is_there, holes, table, 100)
    assert hidden.how == "given the holes of other rows"
    assert hidden.is_hidden.any()
    assert not (hidden.is_hidden & ~observed[hidden.example]).any()


def test_too_few_hidden_entries_leave_the_intervals_alone():
    observed = np.ones((4, 4), bool)
    x = {"values": TABLE.to_model(rows(4, 0), observed), "observed": observed}
    holes = ~observed[:1]
    hidden = hiding.hide(0, observed, hiding.is_there_of(observed, None), ~holes, TABLE, 1_000)
    found = calibrating.calibrate(narrow, jax.random.key(0), None, x, None, hidden, TABLE)
    assert "12 entries of validation rows can be hidden" in found.in_words()
    entries = entries_of(np.zeros(2, int), np.array([0, 1]), 0.6)
    assert calibrating.widen(entries, found, TABLE) is entries
    assert not found.to_json()["is_calibrated"]


def test_few_rows_correct_no_intervals_unless_these_are_far_off():
    """12 rows whose 20 entries each are inside or outside together."""
    table = Table((COLUMNS[0],) * 2)
    row = np.repeat(np.arange(12), 20)
    column = np.tile([0, 1], 120)
    entries = entries_of(row, column, 1.0)
    for num_outside, is_calibrated in ((2, False), (10, True)):
        truth = np.where(row < num_outside, 50.0, 5.0)
        found = calibrating._calibration(truth, entries, row, "", table)
        assert found.own_coverage == pytest.approx(1 - num_outside / 12)
        assert bool(found.groups) == is_calibrated
    uncertain = calibrating._calibration(np.where(row < 2, 50.0, 5.0), entries, row, "", table)
    assert "they held 83.3 ± 11.2 % of 240 hidden entries of 12" in uncertain.in_words()


def test_hidden_counts_are_not_told_by_the_exposure():
    table = TABLE._replace(exposure="total", exposure_mean=10.0)
    values = np.array([[0.0, 1.0, 30.0, 1.0], [0.0, 1.0, 30.0, 1.0]], np.float32)
    x = {"values": values, "observed": np.ones((2, 4), bool), "exposure": np.full(2, 3.0)}
    is_hidden = np.array([[True, False, False, False], [False, False, True, False]])
    given = hiding.without(x, is_hidden, table)
    assert given["exposure"].tolist() == [3.0, 1.0]  # 1: nothing is known
    assert given["values"][1, 2] == 0.0
