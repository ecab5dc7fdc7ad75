"""Texts that are numbers, or nearly."""

import re
from collections.abc import Sequence

SOME = 5  # more texts than these show what they are
SHOWN = 3
FEW = 0.1  # of the texts
# a number with a unit before or after it, thousands apart, or a decimal comma
MARKED = re.compile(r"[^\d\s.,+-]?\s*[+-]?\d[\d.,' ]*\s*[^\d\s]{0,4}")


def is_number(text: str) -> bool:
    """Whether Python reads a text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def said_of_numbers(texts: Sequence[str]) -> str:
    """What keeps a column from being one of numbers where its texts are such for the most part,
    with a comma before it; "" of other texts.
    """
    others = [text for text in texts if not is_number(text)]
    if not others or len(texts) <= SOME:
        return ""
    if len(others) <= FEW * len(texts):
        shown = ", ".join(map(repr, others[:SHOWN])) + (", ..." if len(others) > SHOWN else "")
        return f", all numbers but {shown}: mend these, or name them by config.data.sentinel"
    num_marked = sum(MARKED.fullmatch(text) is not None for text in others)
    if num_marked >= (1.0 - FEW) * len(others):
        return f", numbers written as {others[0]!r}: write digits and a decimal point alone"
    return ""
