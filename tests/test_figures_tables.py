"""Figures of tables show the numbers that they were given: correlations, confusions, counts."""

import itertools

import numpy as np
import pytest
from test_figures import watched

from experiments import figures
from experiments.figures import columns, correlations, counts


@pytest.fixture
def drawn():
    with watched() as seen:
        yield seen


def table(num=40, size=5, *, missing=0.3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, size)) + rng.normal(size=(num, 1)) + 1e3
    return np.where(rng.random(x.shape) < missing, np.nan, x)


def test_correlations_without_missing_values_are_numpys():
    x = table(missing=0.0)
    found = correlations.pairwise_correlations(x)
    np.testing.assert_allclose(found, np.corrcoef(x.T), atol=1e-9)


def test_a_correlation_is_over_the_rows_that_have_both_columns():
    x = table()
    found = correlations.pairwise_correlations(x)
    for i, j in itertools.product(range(x.shape[1]), repeat=2):
        both = np.isfinite(x[:, [i, j]]).all(1)
        np.testing.assert_allclose(
            found[i, j], np.corrcoef(x[both, i], x[both, j])[0, 1], atol=1e-9
        )


def test_there_is_no_correlation_of_what_does_not_vary_or_is_seldom_there_together():
    x = table(missing=0.0)
    x[:, 1] = 0.1
    x[:20, 2] = np.nan
    x[18:, 3] = np.nan
    found = correlations.pairwise_correlations(x)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(found[2, 3])
    assert np.isfinite(found[[0, 0, 0, 2], [0, 2, 3, 2]]).all()


def test_each_pair_of_columns_is_a_point(tmp_path, drawn):
    x = table()
    y = table(missing=0.0)
    figures.correlation_maps(tmp_path / "a.png", x, y, list("abcde"), title="t")
    axes = drawn["figure"].axes
    np.testing.assert_allclose(axes[0].images[0].get_array(), correlations.pairwise_correlations(x))
    points = np.asarray(axes[2].collections[0].get_offsets())
    first, second = np.triu_indices(5, 1)
    expected = [correlations.pairwise_correlations(each)[first, second] for each in (x, y)]
    np.testing.assert_allclose(points.T, expected)


def test_pairs_without_a_correlation_are_said_to_be_left_out(tmp_path, drawn):
    x = table(missing=0.0)
    x[:, 0] = 1.0
    figures.correlation_maps(tmp_path / "a.png", x, x[:, ::-1], list("abcde"), title="t")
    assert "3 pairs; 7 pairs left out" in drawn["figure"].get_supxlabel()


def test_a_confusion_is_of_shares_of_each_true_level(tmp_path, drawn):
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    rebuilt = np.array([0, 0, 0, 1, 1, 2, 2])
    column = figures.Reconstructed("c", truth, rebuilt, ("a", "b", "c"))
    figures.reconstructed_columns(tmp_path / "a.png", [column], title="t")
    (ax,) = drawn["figure"].axes
    np.testing.assert_allclose(
        ax.images[0].get_array(), [[0.75, 0.0, 0.0], [0.25, 0.5, 0.0], [0.0, 0.5, 1.0]]
    )
    assert "71 % right" in ax.get_title()


def test_points_are_data_against_reconstruction_with_r_squared(tmp_path, drawn):
    truth = np.array([1.0, 2.0, 3.0, 6.0])
    rebuilt = np.array([1.0, 2.0, 4.0, 5.0])
    figures.reconstructed_columns(
        tmp_path / "a.png", [figures.Reconstructed("c", truth, rebuilt)], title="t"
    )
    (ax,) = drawn["figure"].axes
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(points.T, [truth, rebuilt])
    assert f"{1 - 2 / 14:.2f}" in ax.get_title()


@pytest.mark.cases(rest="slow", default=["25"], integration=["24"])
@pytest.mark.parametrize("num", [24, 25, 90])
def test_at_most_24_columns_are_shown_and_the_choice_is_said(num, tmp_path, drawn):
    column = figures.Reconstructed("c", np.arange(3.0), np.arange(3.0))
    figures.reconstructed_columns(tmp_path / "a.png", [column] * num, title="t")
    assert len(drawn["figure"].axes) == 24
    said = f"24 of {num} columns, evenly spaced" in drawn["figure"].get_supxlabel()
    assert said == (num > 24)


def test_imputed_entries_stand_in_order_with_their_intervals(tmp_path, drawn):
    mean = np.array([3.0, 1.0, 2.0])
    column = figures.Imputed("c", np.linspace(0.0, 4.0, 9), mean, mean - 0.5, mean + 1.0)
    figures.imputed_columns(tmp_path / "a.png", [column], title="t")
    (ax,) = drawn["figure"].axes
    intervals, points = ax.collections
    np.testing.assert_allclose(np.asarray(points.get_offsets())[:, 1], [1, 2, 3])
    ends = [segment[:, 1] for segment in intervals.get_segments()]
    np.testing.assert_allclose(ends, [[0.5, 2.0], [1.5, 3.0], [2.5, 4.0]])


def test_means_variances_and_shares_of_zeros_are_those_of_the_columns(tmp_path, drawn):
    rng = np.random.default_rng(0)
    data = rng.poisson(2.0, (50, 4)).astype(float)
    data[:10, 0] = np.nan
    data[:, 3] = 0.0
    samples = rng.poisson(1.0, (70, 4)).astype(float)
    figures.count_statistics(tmp_path / "a.png", data, samples, title="t")
    left, right = drawn["figure"].axes
    shown = np.asarray(left.collections[0].get_offsets())
    expected = [np.nanmean(data, 0)[:3], np.nanvar(data, 0)[:3]]
    np.testing.assert_allclose(shown.T, expected)
    zeros = np.asarray(right.collections[0].get_offsets())
    of_data = [np.mean(column[np.isfinite(column)] == 0) for column in data.T]
    np.testing.assert_allclose(zeros.T, [100 * np.array(of_data), 100 * (samples == 0).mean(0)])
    assert "1 of the points on the left not drawn" in drawn["figure"].get_supxlabel()


def test_zeros_are_a_share_of_what_is_there():
    np.testing.assert_allclose(counts.zero_share(np.array([[0.0, np.nan], [1.0, 0.0]])), [0.5, 1.0])


def test_r_squared_of_no_variance_is_nan():
    assert np.isnan(columns.r_squared(np.ones(3), np.zeros(3)))


REFUSED = {
    "reconstructed_columns needs one or more": lambda p: figures.reconstructed_columns(
        p, [], title=""
    ),
    "'c' has shape": lambda p: figures.reconstructed_columns(
        p, [figures.Reconstructed("c", np.array([np.nan]), np.ones(1))], title=""
    ),
    "imputed_columns needs finite": lambda p: figures.imputed_columns(
        p, [figures.Imputed("c", np.ones(0), np.ones(1), np.ones(1), np.ones(1))], title=""
    ),
    "needs data": lambda p: figures.correlation_maps(
        p, np.ones((3, 2)), np.ones((3, 3)), list("abc"), title=""
    ),
    "needs counts": lambda p: figures.count_statistics(
        p, -np.ones((3, 2)), np.ones((3, 2)), title=""
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_drawn_is_refused(message, tmp_path):
    with pytest.raises(ValueError, match=message):
        REFUSED[message](tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
