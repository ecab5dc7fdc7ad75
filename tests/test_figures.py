"""Every figure decodes, clips and overlaps no text, and shows the numbers that it was given."""

import functools
import itertools
import math
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from experiments import figures
from experiments.figures import page

TITLE = "vae-digits: a title of some length, with a $ and an under_score, at step 4,000 of a run"


def uniform(*shape):
    return np.random.default_rng(0).random(shape)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def training_rows(num=40, *, epochs=True):
    """Train and evaluation rows in turn; the ELBO starts at -550 nats and settles at -100."""
    rows = []
    for step in range(0, num * 100, 100):
        elbo = -100 - 450 * np.exp(-step / 100)
        epoch = {"epoch": step / 196} if epochs else {}
        terms = {
            "elbo": elbo,
            "log_lik": elbo + 25,
            "kl": 25.0,
            "active_units": 12,
            "elbo_stderr": 0.8,
        }
        split = "test" if step % 500 == 0 else "train"
        # cosine decay, to next to nothing
        rate = 1e-3 * np.cos(np.pi / 2 * step / (100 * num - 99)) ** 2
        optimiser = {
            "train/learning_rate": rate,
            "train/grad_norm": 50.0,
            "train/beta": min(1, step / 1000),
        }
        rows.append(
            {"step": step, **epoch, **{f"{split}/{k}": v for k, v in terms.items()}, **optimiser}
        )
    return rows


def curves(path, **changes):
    return figures.learning_curves(path, [row | changes for row in training_rows()], title=TITLE)


def some_curves(*keys, **settings):
    rows = [
        {key: row[key] for key in ("step", *keys) if key in row}
        for row in training_rows(**settings)
    ]
    return lambda path: figures.learning_curves(path, rows, title=TITLE)


def rebuilt(*shape):
    x = uniform(*shape)
    return lambda path: figures.reconstructions(path, x, 1.2 * x - 0.1, title=TITLE)


def grid(*shape):
    return lambda path: figures.image_grid(
        path, uniform(*shape), title=TITLE, subtitle="mean of p(x|z)"
    )


def walk(*shape):
    x = uniform(*shape)
    return lambda path: figures.interpolation(path, x, title=TITLE, left=x[:, 0], right=x[:, -1])


def plane(*shape):
    return lambda path: figures.manifold(path, uniform(*shape), extent=(-2, 2), title=TITLE)


def scatter(num, labels):
    return lambda path: figures.latent_plane(
        path, normal(num, 2), labels, title=TITLE, xlabel="PC $1", ylabel="z₂"
    )


def bars(num):
    return lambda path: figures.kl_per_dimension(
        path, uniform(num), uniform(num) > 0.5, title=TITLE
    )


def table_columns(num):
    """Columns of all kinds in turn, of a table with reconstructions."""
    x = normal(60, 2) * 3e-4
    codes = np.arange(60) % 3
    each = [
        figures.Reconstructed("a name with $ and under_scores, long", x[:, 0], x[:, 1]),
        figures.Reconstructed("classes", codes, codes[::-1], ("low", "in the middle", "high")),
        figures.Reconstructed("counts", np.arange(60) ** 3, np.full(60, 7.5), is_log=True),
        figures.Reconstructed("many", codes, codes, tuple(map(str, range(40)))),
        figures.Reconstructed("large", 1e7 + x[:, 0], 1e7 + x[:, 1]),
        figures.Reconstructed("constant", np.full(9, 2.0), np.full(9, 2.0)),
        figures.Reconstructed("few counts", np.arange(30) % 2, np.full(30, 0.5), is_log=True),
    ]
    return [each[i % len(each)] for i in range(num)]


def imputed(num):
    x = normal(50) * 1e3
    codes = np.arange(50) % 3
    each = [
        figures.Imputed("real", x, x[:45], x[:45] - 100, x[:45] + 200),
        figures.Imputed("classes", codes, codes[:7], codes[:7], codes[:7], ("no", "yes", "other")),
        figures.Imputed("one entry", x, x[:1], x[:1], x[:1]),
    ]
    return [each[i % len(each)] for i in range(num)]


def heat_maps(num):
    x = normal(50, num) + normal(50)[:, None]
    names = [f"a column of number {d}" for d in range(num)]
    return lambda path: figures.correlation_maps(path, x, x[::-1] ** 3, names, title=TITLE)


def statistics(num):
    rates = np.geomspace(1e-3, 1e4, num)
    data = np.random.default_rng(0).poisson(rates, (80, num))
    return lambda path: figures.count_statistics(path, data, data[:40] + 1, title=TITLE)


# than in training_rows
OTHERWISE = {"train/beta": 1.0, "test/elbo": -101.0, "train/elbo_stderr": None}

FIGURES = {
    "curves": curves,
    "curves, KL of weight 1": lambda path: curves(path, **OTHERWISE),
    "curves, few": some_curves("train/log_lik", "train/grad_norm", "train/learning_rate"),
    "curves, one row": lambda path: figures.learning_curves(
        path, [{"step": 1, "train/elbo": -3.0}], title=TITLE
    ),
    "curves, no epochs": some_curves("train/elbo", "test/elbo", "train/kl", epochs=False),
    "reconstructions, one": rebuilt(1, 8, 8),
    "reconstructions, 28x28": rebuilt(20, 28, 28),
    "reconstructions, tall": rebuilt(9, 28, 20, 1),
    "reconstructions, colour": rebuilt(16, 32, 32, 3),
    "reconstructions, vectors": rebuilt(20, 30),
    "reconstructions, scalars": rebuilt(2, 1),
    "grid, one": grid(1, 8, 8),
    "grid, many": grid(100, 28, 28),
    "grid, colour": grid(10, 32, 32, 3),
    "grid, vectors": grid(50, 7),
    "grid, two channels": grid(6, 32, 32, 2),
    "grid, alpha": grid(6, 32, 32, 4),
    "grid, volumes": grid(6, 16, 16, 16),
    "grid, volumes in colour": grid(2, 12, 7, 16, 3),
    "grid, photographs": grid(16, 218, 178, 3),
    "grid, large photographs": grid(9, 900, 700),
    "reconstructions, volumes": rebuilt(3, 16, 16, 16),
    "walk, photographs": walk(2, 11, 218, 178, 3),
    "manifold, tall": plane(15, 15, 28, 20),
    "manifold, volumes": plane(3, 3, 16, 16, 16),
    "walk, one": walk(1, 2, 8, 8),
    "walk, 28x28": walk(6, 10, 28, 28),
    "walk, colour": walk(3, 20, 32, 32, 3),
    "walk, vectors": walk(8, 9, 30),
    "manifold, one": plane(1, 1, 8, 8),
    "manifold, 20x20": plane(20, 20, 8, 8),
    "manifold, colour": plane(5, 5, 32, 32, 3),
    "manifold, vectors": plane(9, 9, 12),
    "plane, unlabelled": scatter(40, None),
    "plane, ten labels": scatter(6000, np.arange(6000) % 10),
    "plane, many labels": scatter(400, np.arange(400) % 37),
    "bars, 1": bars(1),
    "bars, 30": bars(30),
    "bars, 120": bars(120),
    **{
        f"columns, {num}": lambda path, num=num: figures.reconstructed_columns(
            path, table_columns(num), title=TITLE
        )
        for num in (1, 7, 60)
    },
    **{
        f"imputed, {num}": lambda path, num=num: figures.imputed_columns(
            path, imputed(num), title=TITLE
        )
        for num in (2, 30)
    },
    **{f"correlations, {num}": heat_maps(num) for num in (2, 30, 300)},
    **{f"counts, {num}": statistics(num) for num in (1, 400)},
}


@contextmanager
def watched():
    """What is drawn inside: the last figure, and each of its texts with its box in pixels."""
    seen = {"texts": []}
    draw = Text.draw
    write = page.write

    def draw_and_note(self, renderer):
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            seen["texts"].append((self, self.get_window_extent(renderer)))

    def write_and_note(fig, path):
        seen["figure"] = fig
        write(fig, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", draw_and_note)
        patch.setattr(page, "write", write_and_note)
        yield seen


@pytest.fixture
def drawn():
    with watched() as seen:
        yield seen


class Once(NamedTuple):
    seen: dict
    returned: bool  # the path that was asked for
    files: list[str]  # in the folder afterwards
    pixels: np.ndarray
    settings_kept: bool


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """By name, one of FIGURES: drawn once, for all the checks of it."""

    @functools.cache
    def draw(name):
        path = tmp_path_factory.mktemp("figures") / "made" / "on_the_way" / "figure.png"
        settings = dict(matplotlib.rcParams)
        with watched() as seen:
            returned = FIGURES[name](path)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        files = [file.name for file in path.parent.iterdir()]
        return Once(seen, returned == path, files, pixels, dict(matplotlib.rcParams) == settings)

    return draw


def words(drawn):
    return [text.get_text() for text, _ in drawn["texts"]]


@pytest.mark.cases(
    rest="slow",
    integration=[
        "curves",
        "reconstructions, 28x28",
        "grid, photographs",
        "grid, volumes in colour",
        "walk, colour",
        "manifold, vectors",
        "plane, ten labels",
        "bars, 30",
        "columns, 7",
        "imputed, 30",
        "correlations, 30",
        "counts, 400",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_decodes_and_its_text_is_whole(name, once):
    seen, returned, files, pixels, settings_kept = once(name)
    assert returned
    assert files == ["figure.png"], "the partial file is left behind"
    assert settings_kept
    height, width = pixels.shape
    is_large = "photographs" in name
    assert 6 * page.DPI <= width <= (19 if is_large else 9) * page.DPI
    assert 1.6 * page.DPI <= height <= (19 if is_large else 12) * page.DPI
    assert pixels.std() > 5, "the page is blank"
    whole = seen["figure"].bbox
    for text, box in seen["texts"]:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
        assert inside, f"{text.get_text()!r} leaves the page of {whole.bounds}: {box.bounds}"
    # a label's median: may lie on another's
    outlined = [text for text, _ in seen["texts"] if text.get_path_effects()]
    for (one, box), (other, its) in itertools.combinations(seen["texts"], 2):
        apart = not box.overlaps(its) or one in outlined or other in outlined
        assert apart, f"{one.get_text()!r} lies on {other.get_text()!r}"


@pytest.mark.cases(rest=None, integration=["reconstructions, vectors"])
@pytest.mark.parametrize("name", [name for name in FIGURES if "vectors" in name])
def test_the_title_says_that_data_are_vectors(name, once):
    assert "\nvectors, one" in once(name).seen["figure"].get_suptitle()


def test_a_title_is_broken_between_its_clauses(tmp_path, drawn):
    title = "vae-digits: test examples and their reconstructions, E[x | z] at the posterior mean"
    figures.reconstructions(tmp_path / "a.png", uniform(20, 8, 8), uniform(20, 8, 8), title=title)
    assert drawn["figure"].get_suptitle() == title.replace("s, E", "s,\nE")


@pytest.mark.parametrize("width", [20, 33, 60])
@pytest.mark.parametrize(
    "text", ["", TITLE, "word " * 60, "a " + "long-" * 8 + "name of " + 5 * "words, "]
)
def test_wrapping_keeps_the_words_and_takes_no_more_lines_than_it_must(text, width):
    lines = page.wrapped(text, width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == len(textwrap.wrap(text, width, break_on_hyphens=False))
    if all(len(word) <= width for word in text.split()):
        assert " ".join(lines).split() == text.split()


def test_a_long_title_is_wrapped(tmp_path, drawn):
    figures.kl_per_dimension(tmp_path / "a.png", [1.0], [True], title="word " * 60)
    whole = drawn["figure"].bbox
    assert all(
        box.x0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1 for _, box in drawn["texts"]
    )


@pytest.mark.integration
def test_no_pyplot_and_no_matplotlib_before_it_is_needed(tmp_path):
    code = (
        "import sys; from experiments import figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "figures.kl_per_dimension(sys.argv[1], [1.0, 0.0], [True, False], title='t')\n"
        "rows = [{'step': i, 'train/elbo': -1e4 * (i == 0) - 1 / (1 + i)} for i in range(9)]\n"
        "figures.learning_curves(sys.argv[1], rows, title='with a note')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


def test_a_failure_leaves_the_old_figure(tmp_path, monkeypatch):
    path = bars(3)(tmp_path / "a.png")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        bars(5)(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---- Curves.


@pytest.mark.integration
def test_the_huge_first_values_are_cut_and_said_to_be(once):
    seen = once("curves").seen
    elbo = seen["figure"].axes[0]
    low, high = elbo.get_ylim()
    assert -130 < low < -101
    assert -100 < high < -95
    assert "↓ view cut: down to −550 at step 0" in words(seen)


def test_a_log_scale_of_less_than_a_decade_has_plain_ticks(tmp_path, drawn):
    rows = [{"step": step, "train/grad_norm": 6_000.0 + 500 * step} for step in range(20)]
    figures.learning_curves(tmp_path / "a.png", rows, title=TITLE)
    assert "10,000" in words(drawn)
    assert not any("mathdefault" in word for word in words(drawn))


def test_no_active_units_are_drawn_from_0_to_1(tmp_path, drawn):
    rows = [{"step": step, "test/active_units": 0} for step in range(3)]
    figures.learning_curves(tmp_path / "a.png", rows, title=TITLE)
    assert drawn["figure"].axes[0].get_ylim() == (0, 1)


def test_a_gentle_curve_is_not_cut(tmp_path, drawn):
    rows = [{"step": step, "train/elbo": -100.0 + step} for step in range(50)]
    figures.learning_curves(tmp_path / "a.png", rows, title=TITLE)
    low, high = drawn["figure"].axes[0].get_ylim()
    assert low <= -100
    assert high >= -51
    assert not any("cut" in word for word in words(drawn))


def test_an_early_burst_of_the_kl_is_cut_above(tmp_path, drawn):
    rows = [{"step": step, "train/kl": 20 + 5000 * np.exp(-step)} for step in range(50)]
    figures.learning_curves(tmp_path / "a.png", rows, title=TITLE)
    assert drawn["figure"].axes[0].get_ylim()[1] < 1000
    assert "↑ view cut: up to 5,020 at step 0" in words(drawn)


def assert_notes_lie_on_no_curve(seen):
    """The notes of all panels, a point every 2 % of each segment of each curve; there is at least
    one note.
    """
    boxes = dict(seen["texts"])
    notes = [(ax, note) for ax in seen["figure"].axes for note in ax.texts]
    assert notes
    for ax, note in notes:
        for line in ax.lines:
            vertices = ax.transData.transform(line.get_xydata())
            at = np.linspace(0, len(vertices) - 1, 50 * len(vertices))
            x, y = (np.interp(at, range(len(vertices)), v) for v in vertices.T)
            box = boxes[note]
            on_it = (x >= box.x0) & (x <= box.x1) & (y >= box.y0) & (y <= box.y1)
            assert not on_it.any(), f"{note.get_text()!r} lies on the curve {line.get_label()!r}"


@pytest.mark.cases(rest=None, integration=["curves, KL of weight 1"])
@pytest.mark.parametrize(
    "name", ["curves", "curves, KL of weight 1", "curves, few", "curves, no epochs"]
)
def test_a_note_lies_on_no_curve(name, once):
    assert_notes_lie_on_no_curve(once(name).seen)


STEPS = np.arange(60)
HARD = {
    "falls at last": {
        "train/learning_rate": 1e-3 * np.cos(np.pi / 2 * STEPS / 59.001) ** 2,
        "train/grad_norm": 5.0 + 0 * STEPS,
    },
    "rises at first": {
        "train/learning_rate": 10.0 ** np.minimum(-3, STEPS - 12),
        "train/grad_norm": 5.0 + 0 * STEPS,
    },
    "both": {
        "train/learning_rate": 1e-3 * np.sin(np.pi * (STEPS + 0.001) / 59.002) ** 8,
        "train/grad_norm": 5.0 + 0 * STEPS,
    },
    "ends badly": {"train/elbo": -100.0 - 1e4 * (STEPS == 59) - 1e3 * (STEPS == 30)},
    "bursts late": {"train/kl": 20.0 + 1e4 * (STEPS == 59)},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", HARD)
def test_a_note_lies_on_no_curve_wherever_the_curve_goes(name, tmp_path, drawn):
    rows = [
        {"step": int(i), **{key: float(values[i]) for key, values in HARD[name].items()}}
        for i in STEPS
    ]
    figures.learning_curves(tmp_path / "a.png", rows, title=TITLE)
    assert any("view cut" in word for word in words(drawn))
    assert_notes_lie_on_no_curve(drawn)


def test_panels_are_those_for_which_there_are_data(once):
    def headings(name):
        return [ax.get_title(loc="left") for ax in once(name).seen["figure"].axes]

    whole = [
        "ELBO",
        "log-likelihood (reconstruction)",
        "KL to the prior",
        "active units",
        "learning rate",
        "gradient norm",
        "weight of the KL",
    ]
    assert headings("curves") == whole
    assert headings("curves, KL of weight 1") == whole[:-1]
    assert headings("curves, few") == [whole[1], whole[4], whole[5]]


def test_the_band_is_one_standard_error_either_side(once):
    (band,) = once("curves, KL of weight 1").seen["figure"].axes[0].collections
    y = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([y.min(), y.max()], [-101.8, -100.2])


def test_epochs_are_steps_over_steps_per_epoch(once):
    ax = once("curves").seen["figure"].axes[0]
    (epochs,) = ax.child_axes
    np.testing.assert_allclose(epochs.get_xlim(), np.array(ax.get_xlim()) / 196)


def test_the_later_of_two_rows_wins_and_what_is_not_finite_is_counted(tmp_path, drawn):
    rows = [
        {"step": 2, "train/elbo": -1.0},
        {"step": 1, "train/elbo": -5.0},
        {"step": 2, "train/elbo": -2.0},
    ]
    figures.learning_curves(
        tmp_path / "a.png", [*rows, {"step": 3, "train/elbo": float("nan")}], title=TITLE
    )
    (line,) = drawn["figure"].axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, -5], [2, -2]])
    assert "not drawn, as not finite: 1" in words(drawn)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "key", ["train/elbo", "train/kl", "test/active_units", "train/grad_norm", "train/beta"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 2.0])
def test_a_run_that_diverged_or_stood_still_is_drawn_without_a_warning(key, value, tmp_path):
    rows = [{"step": step, key: value, f"{key}_stderr": float("nan")} for step in range(3)]
    assert figures.learning_curves(tmp_path / "a.png", rows, title=TITLE).exists()


def test_bars_are_sorted_and_coloured_by_activity(tmp_path, drawn):
    figures.kl_per_dimension(
        tmp_path / "a.png", [0.5, 3.0, 0.0, 1.0], [True, True, False, False], title="KL"
    )
    (ax,) = drawn["figure"].axes
    bar = sorted((p.get_x(), p.get_height(), to_hex(p.get_facecolor()).upper()) for p in ax.patches)
    assert [(height, colour) for _, height, colour in bar] == [
        (3.0, page.BLUE),
        (1.0, page.GREY),
        (0.5, page.BLUE),
        (0.0, page.GREY),
    ]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "3", "0", "2"]
    assert "KL\nsum 4.50 nats over 4 latent dimensions" in words(drawn)
    assert "active: 2 of 4" in words(drawn)


def test_points_have_the_colours_of_their_labels(tmp_path, drawn):
    labels = np.array([7, 3, 3, 7, 7])
    scatter(5, labels)(tmp_path / "a.png")
    colours = [to_hex(colour) for colour in drawn["figure"].axes[0].collections[0].get_facecolors()]
    (legend,) = drawn["figure"].legends
    entries = zip(legend.get_texts(), legend.legend_handles, strict=True)
    key = {text.get_text(): to_hex(handle.get_facecolor()[0]) for text, handle in entries}
    assert len(set(key.values())) == 2
    assert colours == [key["7 (3)"] if label == 7 else key["3 (2)"] for label in labels]


def test_ten_labels_have_colours_that_are_told_apart():
    """Euclidean distance in OKLab (Ottosson 2020), of which 0.1 was alike to the eye."""
    from experiments.figures.latents import TEN

    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in TEN])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    axes = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab = np.cbrt(linear @ cones.T) @ axes.T
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[~np.eye(len(TEN), dtype=bool)]
    assert apart.min() > 0.18
    assert lab[:, 0].max() < 0.9, "too light for white paper"


@pytest.mark.integration
def test_more_labels_than_colours_are_said(once):
    assert any("37 labels on one scale" in word for word in words(once("plane, many labels").seen))
    assert not any("look alike" in word for word in words(once("plane, ten labels").seen))


def test_no_legend_of_inactive_latents_where_there_are_none(tmp_path, drawn):
    figures.kl_per_dimension(tmp_path / "a.png", [1.0, 2.0], [True, True], title="KL")
    assert "active: 2 of 2" in words(drawn)
    assert not any("inactive" in word for word in words(drawn))


# ---- Images: the colour at the centre of a tile, found by way of the ticks.


def test_reconstructions_lie_below_their_originals(tmp_path, drawn):
    levels = np.linspace(0, 1, 20)
    originals = np.ones((20, 8, 8)) * levels[:, None, None]
    figures.reconstructions(tmp_path / "a.png", originals, 1 - originals, title=TITLE)
    (ax,) = drawn["figure"].axes
    canvas = ax.images[0].get_array()
    rows = ax.get_yticks().round().astype(int)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "original",
        "reconstruction",
    ] * (len(rows) // 2)
    seen = []
    for above, below in rows.reshape(-1, 2):
        # not of the paper between the tiles
        grey = np.isclose(canvas[above, :, 0], canvas[above, :, 2])
        np.testing.assert_allclose(canvas[above][grey] + canvas[below][grey], 1)
        seen += [level for level, _ in itertools.groupby(canvas[above, grey, 0])]
    np.testing.assert_allclose(seen, levels)


def test_a_walk_stands_between_its_originals(tmp_path, drawn):
    images = np.ones((2, 5, 8, 8)) * np.array([0.1, 0.3, 0.5, 0.7, 0.9])[:, None, None]
    figures.interpolation(
        tmp_path / "a.png", images, title=TITLE, left=np.zeros((2, 8, 8)), right=np.ones((2, 8, 8))
    )
    (ax,) = drawn["figure"].axes
    columns = ax.get_xticks()
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == ["original", "0", "0.25", "0.5", "0.75", "1", "original"]
    level = ax.images[0].get_array()[10, columns.round().astype(int), 0]
    np.testing.assert_allclose(level, [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1])
    assert np.diff(columns)[[0, -1]].min() > 1.1 * np.diff(columns)[1:-1].max()


def test_the_manifold_has_z1_to_the_right_and_z2_upwards(tmp_path, drawn):
    z1, z2 = np.meshgrid(*[figures.manifold_grid(5, (-2, 2))] * 2)
    colour = np.stack([(z1 + 2) / 4, (z2 + 2) / 4, 0 * z1], axis=-1)
    images = np.ones((5, 5, 8, 8, 3)) * colour[:, :, None, None]
    figures.manifold(tmp_path / "a.png", images, extent=(-2, 2), title=TITLE)
    (ax,) = drawn["figure"].axes
    canvas = ax.images[0].get_array()
    for x, z1_name in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True):
        for y, z2_name in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
            named = [float(name.get_text().replace("−", "-")) for name in (z1_name, z2_name)]
            np.testing.assert_allclose(4 * canvas[round(y), round(x), :2] - 2, named, atol=0.006)
    low, high = ax.get_ylim()
    assert low > high, (
        "rows of pixels count downwards, so the tick of the highest z2 has the smallest y"
    )


def test_the_manifold_grid_is_even_in_probability():
    z = figures.manifold_grid(9, (-1.5, 2.0))
    np.testing.assert_allclose(z[[0, -1]], [-1.5, 2.0], atol=1e-9)
    np.testing.assert_allclose(np.diff([math.erf(value / 2**0.5) for value in z], 2), 0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6, 5, 16), (4, 6, 16, 5), (4, 5, 6, 16), (4, 5, 6, 16, 3)])
def test_of_a_volume_the_middle_slice_along_its_shortest_axis_is_shown(shape):
    from experiments.figures.tiles import pictures

    x = uniform(*shape)
    axis = shape.index(5)
    shown = pictures("image_grid", "images", x, lead=1)
    expected = np.take(x, 2, axis=axis)
    expected = expected if x.ndim == 5 else np.repeat(expected[..., None], 3, -1)
    np.testing.assert_array_equal(shown.colours, expected)
    assert f"slice 3 of 5 along axis {axis}" in shown.scale


def test_two_channels_are_magenta_and_green_and_alpha_is_laid_on_white():
    from experiments.figures.tiles import pictures

    x = uniform(4, 6, 5, 4)
    two = pictures("image_grid", "images", x[..., :2], lead=1).colours
    np.testing.assert_array_equal(two, x[..., [0, 1, 0]])
    four = pictures("image_grid", "images", x, lead=1).colours
    np.testing.assert_allclose(four, x[..., 3:] * x[..., :3] + 1 - x[..., 3:])


def test_photographs_have_a_pixel_of_the_page_for_each_of_their_own(tmp_path, drawn):
    figures.image_grid(tmp_path / "a.png", uniform(16, 218, 178, 3), title=TITLE)
    (ax,) = drawn["figure"].axes
    inches = ax.get_window_extent().width / drawn["figure"].dpi
    per_pixel = inches * page.DPI / ax.images[0].get_array().shape[1]
    assert 0.95 < per_pixel < 1.2


@pytest.mark.integration
def test_of_images_too_large_for_a_sheet_fewer_are_shown(tmp_path, drawn):
    figures.image_grid(tmp_path / "a.png", np.zeros((9, 900, 700)), title=TITLE)
    assert any("images 1 to 6 of 9 of 900 × 700 pixels" in word for word in words(drawn))


def test_walks_are_thinned_to_even_steps():
    from experiments.figures.tiles import thinned

    assert list(thinned(11, 11)) == list(range(11))
    assert list(thinned(11, 10)) == [0, 2, 4, 6, 8, 10]
    assert list(thinned(11, 5)) == [0, 5, 10]
    assert list(thinned(15, 8)) == list(range(0, 15, 2))
    assert list(thinned(11, 1)) == [0, 10]
    assert list(thinned(1, 3)) == [0]


# ---- The helper, and what is refused.


@pytest.mark.parametrize("shape", [(50, 2), (50, 7), (3, 20)])
def test_pca_2d_is_the_eigenvectors_of_the_covariance_up_to_sign(shape):
    means = normal(*shape) * np.arange(1, shape[1] + 1) + 3
    points, fraction = figures.pca_2d(means)
    variance, axes = np.linalg.eigh(np.cov(means.T))  # from the least to the most
    np.testing.assert_allclose(
        np.abs(points), np.abs((means - means.mean(0)) @ axes[:, [-1, -2]]), atol=1e-9
    )
    np.testing.assert_allclose(fraction, variance[[-1, -2]] / variance.sum(), atol=1e-9)
    np.testing.assert_allclose(figures.pca_2d(means[:, ::-1])[0], points, atol=1e-9)  # same signs


def test_pca_2d_of_one_dimension_and_of_no_variance():
    points, fraction = figures.pca_2d([[1.0], [3.0]])
    np.testing.assert_allclose(points, [[-1, 0], [1, 0]])
    np.testing.assert_allclose(fraction, [1, 0])
    points, fraction = figures.pca_2d(np.ones((4, 3)))
    np.testing.assert_allclose(points, 0)
    np.testing.assert_allclose(fraction, 0)


NAN = np.full((4, 8, 8), np.nan)
GOOD = np.zeros((4, 8, 8))
REFUSED = {
    "learning_curves wants one or more rows": lambda p: figures.learning_curves(p, [], title=""),
    "a 'step' each": lambda p: figures.learning_curves(p, [{"train/elbo": 1.0}], title=""),
    "rows with some of": lambda p: figures.learning_curves(p, [{"step": 1}], title=""),
    "reconstructions wants finite originals": lambda p: figures.reconstructions(
        p, NAN, GOOD, title=""
    ),
    "reconstructions wants finite reconstructions": lambda p: figures.reconstructions(
        p, GOOD, NAN, title=""
    ),
    "of one shape": lambda p: figures.reconstructions(p, GOOD, GOOD[:3], title=""),
    "image_grid wants images .* not empty": lambda p: figures.image_grid(p, GOOD[:0], title=""),
    "image_grid wants images of shape": lambda p: figures.image_grid(p, 1.0, title=""),
    "Divide by 255": lambda p: figures.image_grid(p, GOOD + 255, title=""),
    "C of 1 to 4": lambda p: figures.image_grid(p, np.zeros((4, 8, 8, 8, 5)), title=""),
    "wants left": lambda p: figures.interpolation(
        p, GOOD[None], title="", left=GOOD, right=GOOD[:1]
    ),
    "finite right": lambda p: figures.interpolation(
        p, GOOD[None], title="", left=GOOD[:1], right=NAN[:1]
    ),
    "two steps": lambda p: figures.interpolation(p, GOOD[:, None], title="", left=GOOD, right=GOOD),
    r"wants images \[n, n": lambda p: figures.manifold(p, GOOD[None], extent=(-2, 2), title=""),
    "low < high": lambda p: figures.manifold(p, GOOD[None, :1], extent=(2, -2), title=""),
    "wants points": lambda p: figures.latent_plane(
        p, np.zeros((4, 3)), None, title="", xlabel="", ylabel=""
    ),
    "whole labels": lambda p: figures.latent_plane(
        p, np.zeros((4, 2)), [0.5] * 4, title="", xlabel="", ylabel=""
    ),
    "wants finite kl": lambda p: figures.kl_per_dimension(p, [np.nan], [True], title=""),
    "a mask of shape": lambda p: figures.kl_per_dimension(p, [1.0, 2.0], [0, 1], title=""),
    "two examples or more": lambda p: figures.pca_2d([[1.0, 2.0]]),
    "ends in .png": lambda p: figures.image_grid(p.with_suffix(".pdf"), GOOD, title=""),
}


@pytest.mark.parametrize("message", REFUSED)
def test_degenerate_input_is_refused_by_name(message, tmp_path):
    with pytest.raises(ValueError, match=message):
        REFUSED[message](tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
