"""The name of a run on other data than its config's own: titles, lines and folders carry it."""

import re
from pathlib import PurePath


def renamed(name: str, old: str, new: str) -> str:
    """The name of a config whose `data.name` is changed, from `old` to `new`: "vae-digits" on
    "npz:faces.npz" is "vae-faces", and "vae-conv" is "vae-conv-faces".
    """
    label = label_of(new)
    parts = name.split("-")
    if label in parts:
        return name
    if label_of(old) in parts:
        return "-".join(label if part == label_of(old) else part for part in parts)
    return f"{name}-{label}"


def label_of(data_name: str) -> str:
    """A word for a data set: the stem of its file, the name of its folder, of its function."""
    head, _, rest = data_name.partition(":")
    if not rest:
        return head
    if head.endswith(".py"):
        return _word(data_name.rpartition(":")[2])
    if head == "tfds":
        return _word(rest.split("/")[0])
    path = PurePath(rest.rstrip("/"))
    return _word(path.stem if path.suffix in (".npz", ".npy", ".csv", ".parquet") else path.name)


def _word(text: str) -> str:
    return re.sub(r"[^\w.]+", "_", text).strip("._") or "data"
