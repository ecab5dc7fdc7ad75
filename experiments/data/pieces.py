"""One column of a table in all of its splits: numbers, with what is missing marked."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.data import kinds
from experiments.data.base import DataError
from experiments.data.options import Options, sentinel_numbers
from experiments.data.raw import Coded, RawColumn, RawTable

Parts = Mapping[str, tuple[RawTable, np.ndarray]]  # role -> the table of its split, its rows


class Piece(NamedTuple):
    """The values of one column in the rows of a split."""

    values: np.ndarray  # float64 [n]; of texts, codes
    observed: np.ndarray  # bool [n]


class Pieces(NamedTuple):
    """The same of every split."""

    by_role: dict[str, Piece]
    texts: tuple[str, ...] | None

    def seen(self, name: str) -> kinds.Seen:
        """What is seen of the column."""
        known = {role: piece.values[piece.observed] for role, piece in self.by_role.items()}
        return kinds.look(name, known["train"], list(known.values()), self.texts)


def pieces_of(parts: Parts, name: str, options: Options) -> Pieces:
    """One column in all splits; texts by codes that all of them share."""
    columns = {role: raw.columns[raw.names.index(name)] for role, (raw, _) in parts.items()}
    are_texts = {isinstance(column, Coded) for column in columns.values()}
    if len(are_texts) > 1:
        raise DataError(
            f"the column {name!r} holds texts in one split and numbers in another; save both alike."
        )
    texts = _all_texts(list(columns.values()), options) if True in are_texts else None
    pieces = {
        role: _piece(columns[role], rows, texts, options) for role, (_, rows) in parts.items()
    }
    return Pieces(pieces, texts)


def _all_texts(columns: list[RawColumn], options: Options) -> tuple[str, ...]:
    """The levels of a column of texts, sorted, sentinels apart."""
    found = {text for column in columns if isinstance(column, Coded) for text in column.levels}
    return tuple(sorted(found - set(options.sentinels)))


def _piece(
    column: RawColumn, rows: np.ndarray, texts: tuple[str, ...] | None, options: Options
) -> Piece:
    if isinstance(column, Coded):
        assert texts is not None
        place = {text: code for code, text in enumerate(texts)}
        recoded = np.array([place.get(text, -1) for text in column.levels] + [-1], np.int32)
        codes = recoded[column.codes[rows]]  # the last one is that of -1, missing
        return Piece(codes.astype(np.float64), codes >= 0)
    return piece_of(column[rows], options)


def piece_of(column: np.ndarray, options: Options) -> Piece:
    """A column of numbers, sentinels and nan not observed."""
    values = np.asarray(column, np.float64)
    observed = ~np.isnan(values)
    for number in sentinel_numbers(options):
        observed &= values != number
    return Piece(values, observed)
