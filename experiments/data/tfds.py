"""Any TFDS image set, `tfds:NAME` or `tfds:NAME/CONFIG`, from its array_record files, read without
TensorFlow.

The folder is looked at first, DATA_DIR/NAME[/CONFIG]/VERSION: TFDS itself, unprepared and offline,
retries for minutes. A set that is not there is prepared by TFDS where a network answers, which for
some sets needs TensorFlow to be installed.
"""

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import fetch
from experiments.data.base import DataError, Raw, Source, did_you_mean, folder_of, require, say
from experiments.data.levels import as_labels, as_levels, check_mean

NETWORK_URL = "https://storage.googleapis.com/tfds-data/"
CHUNK = 1024  # records decoded at a time
_CLASS_KEYS = (
    "pythonClassName",
    "python_class_name",
    "type",
)  # of features.json, now and in older versions
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9][\w.-]*)?")


def open_source(name: str, data_dir: str) -> Source:
    """The prepared set in `data_dir` (TFDS's own folder when ""); images uint8 [N, *shape]. Raises
    DataError.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"config.data.name='tfds:{name}' names no TFDS set; write tfds:NAME or "
            "tfds:NAME/CONFIG."
        )
    for module, package in (
        ("importlib_resources", "importlib_resources"),
        ("array_record.python.array_record_data_source", "array_record"),
        ("PIL.Image", "Pillow"),
    ):
        require(module, package, f"config.data.name='tfds:{name}'")
    library = require(
        "tensorflow_datasets", "tensorflow-datasets", f"config.data.name='tfds:{name}'"
    )
    root = (
        folder_of(data_dir, "that TFDS calls data_dir")
        if data_dir
        else Path(library.core.constants.DATA_DIR)
    )
    folder = _prepared(root, name) or _prepare(library, root, name)
    try:
        builder = library.builder_from_directory(folder)
    except Exception as error:  # what TFDS raises for damaged metadata has no common type
        raise DataError(
            f"{folder} cannot be opened by TFDS ({error}); remove it and prepare it again."
        ) from error
    return Source(
        tuple(builder.info.splits), partial(_read, builder, name, folder), f"TFDS in {folder}"
    )


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
    newest = max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))
    _check_format(newest)
    _check_classes(newest)
    return newest


def _versions(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path.parent
        for path in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+(\.\d+)*", path.parent.name)
    ]


def _check_format(folder: Path) -> None:
    """`data_source` reads array_record only, and TFDS's own default is tfrecord."""
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / 'dataset_info.json'} cannot be read ({error}); prepare the set again."
        ) from error
    found = info.get("fileFormat", "tfrecord") if isinstance(info, dict) else "unknown"
    if found != "array_record":
        raise DataError(
            f"{folder} is prepared as {found}, where array_record was wanted; prepare it again, "
            "in another data_dir, "
            "with tfds.builder(NAME, data_dir=DIR, "
            "file_format='array_record').download_and_prepare()."
        )


def _check_classes(folder: Path) -> None:
    """TFDS imports the module of each class that a folder's features name: refuses those of other
    packages.
    """
    path = folder / "features.json"
    named: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        named.extend(
            value
            for key, value in pairs
            if key in _CLASS_KEYS and isinstance(value, str) and "." in value
        )

    try:
        json.loads(path.read_text(), object_pairs_hook=note)
    except FileNotFoundError:
        return  # TFDS says so
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare the set again.") from error
    for name in named:
        if not name.startswith("tensorflow_datasets."):
            raise DataError(
                f"{path} names the class {name!r}, which is not of TFDS and is not imported; "
                "prepare the set again."
            )


def _prepare(library: Any, root: Path, name: str) -> Path:
    """Has TFDS download and prepare the set, once; raises DataError within seconds when no network
    answers.
    """
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
        library.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
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


def _read(builder: Any, name: str, folder: Path, split: str) -> Raw:
    """All of one split, in chunks, with progress on stderr after 2 s."""
    missing = [
        path for path in map(Path, builder.info.splits[split].filepaths) if not path.exists()
    ]
    if missing:
        raise DataError(
            f"split {split!r} of {folder} is described there, but {missing[0].name} is not "
            "there; prepare the set "
            "again, or use a split whose files are."
        )
    with_labels = _check_features(builder, folder)
    try:
        images, labels = _gather(
            builder.as_data_source(split=split), f"{name} {split}", with_labels=with_labels
        )
    except (
        Exception
    ) as error:  # readers and decoders fail in many ways on a damaged file, all meaning the same
        raise DataError(
            f"split {split!r} of {folder} cannot be read ({error}); prepare the set again."
        ) from error
    levels, num_levels = as_levels(images, f"{folder} {split}")
    check_mean(name.split("/")[0], levels, f"{folder} {split}")
    return Raw(
        levels,
        None if labels is None else as_labels(labels, len(levels), f"{folder} {split}"),
        num_levels,
    )


def _check_features(builder: Any, folder: Path) -> bool:
    """Whether there are class labels beside the images; raises DataError where there are no images
    of one shape.
    """
    features = dict(
        getattr(builder.info.features, "items", dict)()
    )  # a set of one unnamed feature has no items
    shape = features["image"].shape if "image" in features else None
    if shape is None or None in shape or np.dtype(features["image"].np_dtype) != np.uint8:
        raise DataError(
            f"{folder} has the features ({', '.join(features)}), where a uint8 'image' of one "
            "fixed shape was wanted; "
            "resize it into an .npz and use npz:FILE."
        )
    label = features.get("label")
    return label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)


def _gather(source: Any, what: str, *, with_labels: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Images [N, *shape] and labels [N] or None of a TFDS data source."""
    images = []
    labels = []
    spoken = time.monotonic()
    for start in range(0, len(source), CHUNK):
        records = source.__getitems__(range(start, min(start + CHUNK, len(source))))
        images.append(np.stack([record["image"] for record in records]))
        labels += [record["label"] for record in records if with_labels]
        if time.monotonic() - spoken > 2:
            spoken = time.monotonic()
            say(f"tfds:{what}: {start + len(records)} of {len(source)}")
    return np.concatenate(images), np.array(labels) if with_labels else None
