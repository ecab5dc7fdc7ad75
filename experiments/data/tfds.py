"""Any TFDS image set, `tfds:NAME` or `tfds:NAME/CONFIG`, from its array_record files (`records`).

A prepared set, DATA_DIR/NAME[/CONFIG]/VERSION, is read without TFDS and without TensorFlow: TFDS
imports the classes that a set's files name, and the set may be someone else's. One that is not
there is prepared by TFDS where a network answers, which for some sets needs TensorFlow to be
installed.
"""

import json
import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from experiments.data import features, fetch, records
from experiments.data.base import DataError, Raw, Source, did_you_mean, folder_of, require, say
from experiments.data.lazy import OnDisk
from experiments.data.levels import as_labels, check_mean, check_rows
from experiments.data.records import Split
from experiments.data.scale import NUM_LEVELS
from vi_jax import files

NETWORK_URL = "https://storage.googleapis.com/tfds-data/"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # the names of a split's files
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9][\w.-]*)?")


def open_source(name: str, data_dir: str, limit_mb: float) -> Source:
    """The prepared set in `data_dir` (TFDS's own folder when ""); images uint8 [N, *shape], which
    stay in their files where the set takes more than `limit_mb` MB. Raises DataError.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"config.data.name='tfds:{name}' names no TFDS set; write tfds:NAME or "
            "tfds:NAME/CONFIG."
        )
    for module, package in (
        ("array_record.python.array_record_module", "array_record"),
        ("PIL.Image", "Pillow"),
    ):
        require(module, package, f"config.data.name='tfds:{name}'")
    root = folder_of(data_dir, "that TFDS calls data_dir") if data_dir else _default_root()
    folder = _prepared(root, name) or _prepare(root, name)
    splits = _read_splits(folder)
    return Source(
        tuple(splits), partial(_read, splits, name, folder, limit_mb), f"TFDS in {folder}"
    )


def _default_root() -> Path:
    """Where TFDS puts its sets (its `core/constants.py`)."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def _prepared(root: Path, name: str) -> Path | None:
    """The newest version of the set under `root`, or None; raises DataError where the choice is not
    ours.
    """
    here = root / name
    versions = _versions(here)
    if not versions and "/" not in name and here.is_dir():
        configs = sorted(path.name for path in here.iterdir() if path.is_dir() and _versions(path))
        if configs:
            raise DataError(
                f"{here} has the configs {', '.join(configs)}; say which, as "
                f"tfds:{name}/{configs[0]}."
            )
    if not versions:
        return None
    return max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))


def _versions(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path.parent
        for path in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+(\.\d+)*", path.parent.name)
    ]


def _read_splits(folder: Path) -> dict[str, Split]:
    """The splits that dataset_info.json describes; raises DataError where they are not to be read.

    Only array_record files are: TFDS's own default is tfrecord.
    """
    path = folder / "dataset_info.json"
    try:
        info = dict(json.loads(files.read_text(path, follow=True)))
        found = info.get("fileFormat", info.get("file_format", "tfrecord"))
        splits = {
            str(split["name"]): _split(folder, str(info["name"]), split)
            for split in info.get("splits", ())
        }
    except (OSError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); prepare the set again."
        ) from error
    if found != "array_record":
        raise DataError(
            f"{folder} is prepared as {found}, where array_record was wanted; prepare it again, "
            "in another data_dir, "
            "with tfds.builder(NAME, data_dir=DIR, "
            "file_format='array_record').download_and_prepare()."
        )
    return splits


def _split(folder: Path, name: str, split: dict[str, Any]) -> Split:
    """One split; raises ValueError where its files would not lie in the folder."""
    lengths = [int(length) for length in split.get("shardLengths", split.get("shard_lengths", ()))]
    template = str(split.get("filepathTemplate", split.get("filepath_template", "")) or TEMPLATE)
    words = {"DATASET": name, "SPLIT": str(split["name"]), "FILEFORMAT": "array_record"}
    paths = []
    for shard in range(len(lengths)):
        digits = max(5, len(str(len(lengths))))
        words["SHARD_INDEX"] = f"{shard:0{digits}}"
        words["NUM_SHARDS"] = f"{len(lengths):0{digits}}"
        words["SHARD_X_OF_Y"] = f"{words['SHARD_INDEX']}-of-{words['NUM_SHARDS']}"
        file = re.sub(r"\{(\w*)\}", lambda match: words[match[1]], template)
        if Path(file).name != file:
            raise ValueError(f"a file outside the folder, {file!r}")
        paths.append(folder / file)
    return Split(paths, sum(lengths))


def _prepare(root: Path, name: str) -> Path:
    """Has TFDS download and prepare the set, once; raises DataError within seconds when no network
    answers.

    TFDS would rather read what lies in the folder of the set than prepare it, and import what that
    names; so nothing may lie there. Downloads go to a cache of the user's, since TFDS trusts what
    it finds among them.
    """
    purpose = f"config.data.name='tfds:{name}'"
    require("importlib_resources", "importlib_resources", purpose)
    library = require("tensorflow_datasets", "tensorflow-datasets", purpose)
    here = root / name
    if files.kind(here) and (files.kind(here) != files.FOLDER or any(here.iterdir())):
        raise DataError(
            f"{here} is there and is no prepared set; remove it to have the set prepared, or name "
            "another config.data.data_dir."
        )
    known = library.list_builders(with_community_datasets=False)
    if name.split("/")[0] not in known:
        raise DataError(
            f"TFDS has no data set {name.split('/')[0]!r}; see its "
            f"catalogue.{did_you_mean(name, known)}"
        )
    recipe = (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{root}', "
        "file_format='array_record').download_and_prepare()\""
    )
    try:
        fetch.first_answer([NETWORK_URL], any_status=True)
    except DataError as error:
        raise DataError(
            f"{root / name} has no prepared data, and no network answers ({error}); point "
            "config.data.data_dir to a "
            f"TFDS data_dir that has it, or run once where there is a network: {recipe}"
        ) from error
    say(f"preparing tfds:{name} in {root}, once")
    try:
        library.builder(name, data_dir=root, file_format="array_record").download_and_prepare(
            download_dir=fetch.cache_folder("tfds")
        )
    except (
        Exception
    ) as error:  # TFDS raises what its hundreds of builders raise; the cause stays attached
        raise DataError(
            f"TFDS could not prepare {name} ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); some sets need TensorFlow for "
            "that: where it is "
            f"installed, run {recipe}"
        ) from error
    folder = _prepared(root, name)
    if folder is None:
        raise DataError(
            f"TFDS prepared {name} but left nothing in {root / name}; say its config, as "
            f"tfds:{name}/CONFIG."
        )
    return folder


def _read(splits: dict[str, Split], name: str, folder: Path, limit_mb: float, split: str) -> Raw:
    """All of one split in memory, or its records on disk where the set takes more than the limit;
    with progress on stderr after 2 s.
    """
    missing = [path for path in splits[split].files if not path.exists()]
    if missing:
        raise DataError(
            f"split {split!r} of {folder} is described there, but {missing[0].name} is not "
            "there; prepare the set "
            "again, or use a split whose files are."
        )
    known = features.read_features(folder)
    shape = features.check_image(known, folder)
    size = sum(each.num_records for each in splits.values()) * math.prod(shape)
    read = records.on_disk if size > limit_mb * 1e6 else records.in_memory
    try:
        (images, labels) = read(splits[split], known, shape, f"{name} {split}")
    except (
        Exception
    ) as error:  # readers and decoders fail in many ways on a damaged file, all meaning the same
        raise DataError(
            f"split {split!r} of {folder} cannot be read ({error}); prepare the set again."
        ) from error
    where = f"{folder} {split}"
    check_rows(images, where)
    if labels is not None:
        labels = as_labels(labels, len(images), where)
    if isinstance(images, OnDisk):
        return Raw(images, labels, NUM_LEVELS, where)
    check_mean(name.split("/")[0], images, where)
    return Raw(images, labels, 0, where)
