"""Effects of covariates on words: what each label raises, as a table, a text and a figure."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.figures.page import BLUE, ORANGE, caption, new_page
from experiments.topics.covariates import Encoded
from vi_jax import files

JSON = "covariates.json"
TEXT = "covariates.txt"
FIGURE = "covariates.png"
NUM_WORDS = 25
NUM_SHOWN = 8  # words of an effect, up and down, in the figure and the text
MOST_SHOWN = 24  # effects of the figure
LEAST_TOKENS = 10  # of a word in all training documents; the effect on a rarer one is not shown


class Effects(NamedTuple):
    """Deviations of the words' log frequencies."""

    names: list[str]  # [C]
    deviations: np.ndarray  # nats, [C, V]; of the average document 0
    vocab: tuple[str, ...]  # [V]
    is_frequent: np.ndarray  # words of at least LEAST_TOKENS, [V]

    def raised(self, effect: int, num: int, *, sign: float = 1.0) -> list[tuple[str, float]]:
        """The frequent words that it raises most, and by how many nats; lowers with sign -1."""
        score = np.where(self.is_frequent, sign * self.deviations[effect], -np.inf)
        order = np.argsort(-score, kind="stable")[:num]
        kept = [word for word in order if score[word] > 0]
        return [(self.vocab[word], float(self.deviations[effect, word])) for word in kept]


def make_effects(deviations: Any, encoded: Encoded, vocab: Any, totals: Any) -> Effects:
    """Effects of parameters [C, V]; `totals` are tokens of each word, [V]."""
    is_frequent = np.asarray(totals) >= LEAST_TOKENS
    return Effects(encoded.names, np.asarray(deviations, float), tuple(vocab), is_frequent)


def save(workdir: Path, effects: Effects) -> None:
    """The words of each effect as JSON and as text."""
    found = []
    for number, name in enumerate(effects.names):
        entry: dict[str, Any] = {"effect": name}
        for key, sign in (("raised", 1.0), ("lowered", -1.0)):
            pairs = effects.raised(number, NUM_WORDS, sign=sign)
            entry[key] = [{"word": word, "nats": value} for word, value in pairs]
        found.append(entry)
    files.write_json(workdir / JSON, found)
    files.write_text(workdir / TEXT, text(effects))


def text(effects: Effects) -> str:
    """A paragraph an effect."""
    found = []
    for number, name in enumerate(effects.names):
        found.append(name)
        for what, sign in (("raised", 1.0), ("lowered", -1.0)):
            pairs = effects.raised(number, NUM_SHOWN, sign=sign)
            shown = " ".join(f"{word} ({value:+.2f})" for word, value in pairs)
            found.append(f"  {what:<9}{shown}")
        found.append("")
    return "\n".join(found)


def draw(path: Path, effects: Effects, *, title: str) -> Path:
    """Bars of the words that each effect raises and lowers most."""
    num = min(len(effects.names), MOST_SHOWN)
    across = min(4, num)
    down = -(-num // across)
    with new_page(path, title=title, size=(2.5 * across + 0.3, 2.6 * down + 0.7)) as fig:
        grid = fig.subplots(down, across, squeeze=False)
        for axes in grid.flat[num:]:
            axes.axis("off")
        for number, axes in enumerate(grid.flat[:num]):
            up = effects.raised(number, NUM_SHOWN)
            lowered = effects.raised(number, NUM_SHOWN, sign=-1.0)
            pairs = up + lowered[::-1]
            values = [value for _, value in pairs]
            colours = [BLUE if value > 0 else ORANGE for value in values]
            axes.barh(np.arange(len(pairs)), values, color=colours)
            axes.set_yticks(
                np.arange(len(pairs)), [word for word, _ in pairs], fontsize=6, parse_math=False
            )
            axes.invert_yaxis()
            axes.axvline(0.0, color="black", linewidth=0.6)
            axes.tick_params(axis="x", labelsize=7)
            axes.set_title(effects.names[number], fontsize=8, parse_math=False)
        left = len(effects.names) - num
        note = f" The first {num} of {len(effects.names)} effects." if left else ""
        caption(
            fig,
            "Nats that a word's log frequency, before it is normalised, is above (blue) or below "
            f"(orange) that of an average document of the same topics; words of at least "
            f"{LEAST_TOKENS} tokens.{note}",
        )
    return path
