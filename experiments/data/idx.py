"""MNIST and Fashion-MNIST from their IDX files, gzipped or not, and any other set in the same four
files.

The format: a big-endian int32 magic (2051 images, 2049 labels), an int32 for each dimension, then
the bytes. Files that are not there are fetched once, where there is a network.
"""

import gzip
import hashlib
import math
import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import fetch
from experiments.data.base import DataError, Raw, Source, folder_of, read_bytes
from experiments.data.levels import as_labels, check_mean

FILES = {  # split -> (images, labels)
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion_mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
}
SHA256 = {  # of the original .gz files
    "mnist": {
        "train-images-idx3-ubyte": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
}
MAGIC = {2051: 3, 2049: 1}  # -> number of dimensions


class _Known(NamedTuple):
    name: str
    stem: str


_OWNERS = {sha: _Known(name, stem) for name, files in SHA256.items() for stem, sha in files.items()}


def open_source(name: str, data_dir: str) -> Source:
    """`name` (mnist or fashion_mnist) in `data_dir`, or in the user's cache when that is ""; raises
    DataError.
    """
    folder = folder_of(data_dir, "with the IDX files") if data_dir else fetch.cache_folder(name)
    return Source(tuple(FILES), partial(_read, name, folder), str(folder))


def _read(name: str, folder: Path, split: str) -> Raw:
    """Images uint8 [N, H, W] and labels [N] of one split."""
    image_path, label_path = (_file(name, folder, stem) for stem in FILES[split])
    images = parse(_checked_bytes(name, image_path), image_path, magic=2051)
    labels = parse(_checked_bytes(name, label_path), label_path, magic=2049)
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} has {len(images)} images and {label_path.name} {len(labels)} labels, "
            "where as many of each "
            "were wanted; the two are of different sets: get both again."
        )
    check_mean(name, images, str(image_path))
    return Raw(images, as_labels(labels, len(images), str(label_path)), num_levels=256)


def parse(content: bytes, path: Path, *, magic: int) -> np.ndarray:
    """IDX bytes, gzipped or not -> uint8 [N, H, W] (magic 2051) or [N] (2049); raises DataError
    naming `path`.
    """
    if content[:2] == b"\x1f\x8b":  # by content: some browsers unpack a .gz and keep its name
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} is a damaged or truncated gzip file ({error}); get it again."
            ) from error
    start = 4 + 4 * MAGIC[magic]
    header = np.frombuffer(content[: min(start, len(content) // 4 * 4)], ">u4").tolist()
    if not header or header[0] != magic:
        came = f"starts with {header[0]}" if header else f"has {len(content)} bytes"
        raise DataError(
            f"{path} {came}, where an IDX file with the magic number {magic} was wanted; get it "
            "again."
        )
    shape = tuple(header[1:])
    if len(shape) != MAGIC[magic] or 0 in shape:
        raise DataError(
            f"{path} has the dimensions {shape}, where {MAGIC[magic]} above 0 were wanted; get "
            "it again."
        )
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} has {len(content) - start} bytes after its header, where its dimensions "
            f"{shape} want "
            f"{math.prod(shape)}; it is cut short or damaged: get it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _checked_bytes(name: str, path: Path) -> bytes:
    """The file's bytes; an original file of another set, or under another's name, is a DataError.
    Others pass.
    """
    content = read_bytes(path)
    owner = _OWNERS.get(hashlib.sha256(content).hexdigest())
    wanted = path.name.removesuffix(".gz").replace(".idx", "-idx")
    if owner and owner != _Known(name, wanted):
        raise DataError(
            f"{path} is {owner.name}'s {owner.stem}, by its checksum, where {name}'s {wanted} "
            "was wanted; the sets "
            "share their file names: keep each in a folder of its own."
        )
    return content


def _file(name: str, folder: Path, stem: str) -> Path:
    """The file in `folder`, under any of its usual names; fetched when there is none."""
    for candidate in (
        f"{stem}.gz",
        stem,
        stem.replace("-idx", ".idx"),
        stem.replace("-idx", ".idx") + ".gz",
    ):
        if (folder / candidate).exists():
            return folder / candidate
    path = folder / f"{stem}.gz"
    try:
        url = fetch.first_answer([mirror + path.name for mirror in MIRRORS[name]])
    except DataError as error:
        raise DataError(
            f"{path.name} of {name} is not in {folder}, and no mirror answers ({error}); put the "
            "four IDX .gz files "
            "in a folder and pass --config.data.data_dir=FOLDER, or run once where there is a "
            "network."
        ) from error
    fetch.download(url, path, SHA256[name][stem])
    return path
