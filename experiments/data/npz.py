"""Images or tables of the user's own in a plain .npz, a .npy, or a folder of either.

`np.savez("mine.npz", x_train=..., y_train=..., x_test=...)` has the names of
`experiments.data.arrays`. A folder has shards: the arrays of one name in all of its .npz files, one
after the other in the order of the files' names; of .npy files the name is the file's without its
number (`x_train-00000-of-00002.npy`), or `x` where that is no name of ours and there is only one.

Arrays that take more than config.data.device_limit_mb together stay on disk, mapped into memory,
where they can be: a .npy, and what `np.savez` wrote; what `np.savez_compressed` wrote is loaded.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments.data import lazy
from experiments.data.arrays import COLUMNS, is_known, source_of
from experiments.data.base import DataError, Source, require_file, say
from experiments.data.stored import ALONE, Stored, arrays_of

SUFFIXES = (".npz", ".npy")
NUMBER = re.compile(r"(^|[-_.])(?P<number>\d+)([-_.]of[-_.](?P<total>\d+))?$")  # of a shard

Shards = Mapping[str, Sequence[Stored]]  # name -> the pieces of its array, in order


def open_source(file: str, data_dir: str, limit_mb: float) -> Source:
    """`file`, under `data_dir` when that is given and the path is relative; raises DataError."""
    path = Path(data_dir) / file
    if path.is_dir():
        shards = _in_folder(path)
    else:
        require_file(path, f"npz:{file}")
        shards = {name: [array] for name, array in arrays_of(path).items()}
    _require_alike(shards)
    large = {name for name, parts in shards.items() if len(parts[0].shape) >= 2}
    size = sum(part.nbytes for name in large for part in shards[name])
    if size <= limit_mb * 1e6 or not _can_be_mapped(shards, large, size, path):
        large = set()
    return source_of(tuple(shards), partial(_get, shards, large), str(path))


def _get(shards: Shards, large: set[str], name: str) -> np.ndarray | lazy.OnDisk:
    """An array in memory, or on disk where it is one of the large ones."""
    parts = [part for part in shards[name] if part.nbytes] or shards[name]
    if name in large:
        checks = [part.watch() for part in parts]
        return lazy.watched(lazy.of_maps([part.mapped() for part in parts]), checks)
    if len(parts) == 1:
        return parts[0].loaded()
    if name in COLUMNS:
        return _names_of_columns(parts)
    return np.concatenate([part.loaded() for part in parts])


def _names_of_columns(parts: Sequence[Stored]) -> np.ndarray:
    """The names of columns, which each shard has for itself."""
    (first, *others) = [part.loaded() for part in parts]
    for part, other in zip(parts[1:], others, strict=True):
        if not np.array_equal(first, other):
            raise DataError(
                f"{part.path} names its columns {_shown(other)}, where {parts[0].path.name} has "
                f"{_shown(first)}; write all shards alike."
            )
    return first


def _shown(names: np.ndarray) -> str:
    shown = [str(name) for name in np.ravel(names)[:8]]
    return ", ".join(shown) + (", ..." if names.size > len(shown) else "")


def _in_folder(folder: Path) -> Shards:
    """The arrays of all files of a folder."""
    paths = sorted(path for path in folder.iterdir() if _is_shard(path))
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) != 1:
        told = "both .npz and .npy files" if suffixes else "no .npz or .npy file"
        raise DataError(f"{folder} holds {told}, where shards of one kind were wanted.")
    _require_all(paths)
    found = [arrays_of(path) for path in paths]
    if suffixes == {".npy"}:
        names = _names_of(paths)
        found = [{name: arrays[ALONE]} for name, arrays in zip(names, found, strict=True)]
    else:
        _require_names(paths, found)
    shards: dict[str, list[Stored]] = {}
    for arrays in found:
        for name, array in arrays.items():
            shards.setdefault(name, []).append(array)
    return shards


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _names_of(paths: Sequence[Path]) -> list[str]:
    """What the arrays in .npy files are called: as the files without their numbers."""
    names = [NUMBER.sub("", path.stem) for path in paths]
    if len(set(names)) == 1 and not is_known(names[0]):
        return [ALONE] * len(names)
    return names


def _require_all(paths: Sequence[Path]) -> None:
    """Raises DataError where names such as x-00000-of-00002 say that shards are missing, or are of
    two sets.
    """
    said: dict[str, dict[int, set[int]]] = {}  # name -> how many it says -> numbers
    for path in paths:
        match = NUMBER.search(path.stem)
        if match is not None and match["total"] is not None:
            totals = said.setdefault(path.stem[: match.start()], {})
            totals.setdefault(int(match["total"]), set()).add(int(match["number"]))
    for name, totals in said.items():
        (total, *others) = sorted(totals)
        if others:
            raise DataError(
                f"{paths[0].parent} holds shards of {name!r} of {total} and of {others[0]} pieces; "
                "move those of one set away."
            )
        if len(totals[total]) != total:
            gone = sorted(set(range(total)) - totals[total]) or [total]
            raise DataError(
                f"{paths[0].parent} holds {len(totals[total])} of {total} shards of {name!r}, "
                f"without number {gone[0]}; bring the others, or name those that are there anew."
            )


def _require_names(paths: Sequence[Path], found: Sequence[Mapping[str, Stored]]) -> None:
    """Raises DataError where shards hold arrays of other names."""
    for path, arrays in zip(paths, found, strict=True):
        if set(arrays) != set(found[0]):
            raise DataError(
                f"{path} holds {', '.join(sorted(arrays))}, where {paths[0].name} holds "
                f"{', '.join(sorted(found[0]))}; write all shards alike."
            )


def _require_alike(shards: Shards) -> None:
    """Raises DataError where the pieces of an array differ in shape or type."""
    for name, parts in shards.items():
        first = parts[0]
        if len(parts) > 1 and not first.shape:
            raise DataError(
                f"{first.path} holds {name!r} as a single number, where shards are wanted as "
                "arrays [N, ...]; write the numbers of all shards as one array."
            )
        is_of_names = name in COLUMNS  # texts have a type for each length
        for part in parts[1:]:
            if is_of_names and part.dtype.kind == first.dtype.kind:
                continue
            if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
                raise DataError(
                    f"{part.path} holds {name!r} as {part.dtype} of shape {part.shape}, where "
                    f"{first.path.name} has {first.dtype} of shape {first.shape}; write all "
                    "shards alike."
                )


def _can_be_mapped(shards: Shards, large: set[str], size: int, path: Path) -> bool:
    """Whether large arrays can stay on disk; says why not.

    Raises:
      DataError: they cannot, and are more than the memory at hand.
    """
    pieces = [part for name in large for part in shards[name] if part.nbytes]
    bad = next((part for part in pieces if part.why), None)
    if bad is None or bad.why in ("damaged", "of Python objects"):
        return bad is None  # what is wrong is told when it is read
    from experiments.run import memory  # which only large arrays ask for

    command = f"python -m zipfile -e {bad.path} DIR, then --config.data.name=npz:DIR"
    if bad.why != "compressed":
        command = "np.save(FILE, np.ascontiguousarray(x)) and npz:FILE"
    told = (
        f"{bad.path}: {bad.key!r} is {bad.why} and cannot be read from the disk row by row; to "
        f"stream it: {command}"
    )
    hand = memory.of_host()
    if size > hand.num_bytes:
        raise DataError(
            f"{told}. All of {path} takes {memory.in_words(size)} of memory, and "
            f"{memory.in_words(hand.num_bytes)} are {hand.source}."
        )
    say(f"{told}. All of it is read into memory ({memory.in_words(size)}).")
    return False
