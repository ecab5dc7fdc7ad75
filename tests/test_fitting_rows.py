"""The lines that a result prints."""

from vi_jax.fitting import _rows


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
