"""The grammar of splits: NAME or NAME[a:b], in examples (as Python slices) or per cent, such as
`train[:80%]`.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from experiments.data.base import DataError, Source, did_you_mean

AUTO = "auto"  # the data set's own splits
CUTS = {"train": "[:80%]", "validation": "[80%:90%]", "test": "[90%:]"}  # of a single one
_BOUND = r"[+-]?[0-9]{1,18}|[+-]?[0-9]{1,3}(?:\.[0-9]{1,9})?%"
_GRAMMAR = re.compile(rf"\s*([^\[\]\s]+)\s*(?:\[\s*({_BOUND})?\s*:\s*({_BOUND})?\s*\])?\s*")


class Selection(NamedTuple):
    """A parsed split string; `start` and `stop` are None, '-5' or '12.5%' until the number of
    examples is known.
    """

    text: str
    name: str
    start: str | None
    stop: str | None
    is_shuffled: bool = False  # before it is sliced
    is_own: bool = False  # cut from a single split, since none was asked for


def parse(text: str, role: str) -> Selection:
    """'train[:80%]' -> Selection; `role` (train, validation, test) is for the message of the
    DataError.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise DataError(
            f"config.data.{role}={text!r} is no split; write NAME or NAME[a:b], with a and b "
            "examples or per cent "
            "or left out, such as 'train[:50000]' or 'all[80%:]'."
        )
    (name, start, stop) = match.groups()
    # the stored order of `all` may mean something
    selection = Selection(text, name, start, stop, is_shuffled=name == "all")
    for bound in (selection.start, selection.stop):
        if bound and bound.endswith("%") and abs(float(bound[:-1])) > 100:
            raise DataError(
                f"config.data.{role}={text!r} asks for {bound}; per cents are wanted in "
                "-100%..100%."
            )
    return selection


def choose(texts: Mapping[str, str], source: Source) -> dict[str, Selection]:
    """The selection of each role that there is.

    Args:
      texts: for train, validation and test a split, or "auto" (for train and test also ""):
        the source's own; a source of one split is cut 80 / 10 / 10, shuffled. An empty validation
        is none, and so is "auto" beside a training split that is given.
      source: which splits there are.

    Raises:
      DataError: a text is no split, or the source has none to follow.
    """
    asked = {role for role, text in texts.items() if _follows(role, text)}
    own = _own(source) if asked else {}
    if "train" not in asked:
        own.pop("validation", None)  # it might overlap what was given
    found = {}
    for role, text in texts.items():
        if role in asked and role in own:
            found[role] = own[role]
        elif role in asked and role != "validation":
            raise DataError(
                f"config.data.{role}={text!r} follows the data set, and {source.where} has "
                f"{', '.join(source.splits)}; name a split, such as {source.splits[0]}[:80%]."
            )
        elif text and role not in asked:
            found[role] = parse(text, role)
    return found


def _follows(role: str, text: str) -> bool:
    return text == AUTO or (not text and role != "validation")


def _own(source: Source) -> dict[str, Selection]:
    """The selections of a source by itself."""
    if source.usual is not None:
        roles = ("train", "validation", "test")
        return {role: parse(text, role) for role, text in zip(roles, source.usual, strict=True)}
    if len(source.splits) == 1:
        (name,) = source.splits
        return {
            role: parse(f"{name}{cut}", role)._replace(is_shuffled=True, is_own=True)
            for role, cut in CUTS.items()
        }
    return {role: parse(role, role) for role in CUTS if role in source.splits}


def resolve(selection: Selection, num_examples: int) -> range:
    """The rows of the split, a range as Python's slicing gives it; raises DataError when it is
    empty.
    """
    rows = range(num_examples)[
        _bound(selection.start, num_examples) : _bound(selection.stop, num_examples)
    ]
    if not rows and selection.is_own:
        raise DataError(
            f"{selection.name!r} has {num_examples}, too few to be cut into 80 / 10 / 10 %; name "
            f"the splits, such as --config.data.train={selection.name}[:-1] "
            f"--config.data.validation= --config.data.test={selection.name}[-1:], which takes two."
        )
    if not rows:
        raise DataError(
            f"split {selection.text!r} holds no example: {selection.name!r} has {num_examples}; "
            "widen the slice."
        )
    return rows


def _bound(text: str | None, num_examples: int) -> int | None:
    """Per cents are rounded to the nearest example, so that [:p%] and [p%:] meet."""
    if text is None:
        return None
    return round(float(text[:-1]) * num_examples / 100) if text.endswith("%") else int(text)


def check_names(selections: dict[str, Selection], available: tuple[str, ...], where: str) -> None:
    """Raises DataError for a split name that the source lacks."""
    for role, selection in selections.items():
        if selection.name not in available:
            hint = did_you_mean(selection.name, available)
            raise DataError(
                f"config.data.{role}={selection.text!r} names no split of {where}, which has "
                f"{', '.join(available)}.{hint}"
            )


def check_disjoint(selections: dict[str, Selection], rows: dict[str, range]) -> None:
    """Raises DataError when training examples are also in the validation or test split."""
    for role in ("validation", "test"):
        if role not in rows or selections[role].name != selections["train"].name:
            continue
        if selections[role].is_shuffled != selections["train"].is_shuffled:
            raise DataError(
                f"config.data.train={selections['train'].text!r} and config.data.{role}="
                f"{selections[role].text!r} are cut one with and one without shuffling; name both, "
                "or none."
            )
        shared = range(
            max(rows["train"].start, rows[role].start), min(rows["train"].stop, rows[role].stop)
        )
        if shared:
            raise DataError(
                f"config.data.train={selections['train'].text!r} and "
                f"config.data.{role}={selections[role].text!r} "
                f"share {len(shared)} examples ({shared.start} to {shared.stop - 1}); make the "
                "slices disjoint."
            )
