"""The features of a prepared TFDS set, from its features.json, by a table of our own.

TFDS rebuilds them by importing the class that the file names, from wherever Python finds it. Here a
name is looked up in `KINDS` and nothing is imported, so that a set from someone else is data and
nothing more. The file comes in three forms, which may be nested in each other: protocol buffers as
JSON ("pythonClassName"), a JSON text inside of that ("jsonFeature"), and the older "type" and
"content". What is read of them is the image and its label; other features may lie beside these.
"""

import io
import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data.base import DataError
from vi_jax import files

MODULE = "tensorflow_datasets.core.features."
CLASSES = ("pythonClassName", "python_class_name", "type")
# Names of TFDS's classes -> how a record's value is read; "" where it is none that we read.
KINDS = {
    "Image": "image",
    "Tensor": "tensor",
    "Scalar": "tensor",
    "ClassLabel": "label",
    **dict.fromkeys(
        (
            *("Text", "FeaturesDict", "Sequence", "Dataset", "Optional", "BBox", "BBoxFeature"),
            *("LabeledImage", "Video", "Audio", "Translation", "TranslationVariableLanguages"),
        ),
        "",
    ),
}
# The field of a feature's protocol buffer that holds the rest of it.
CONTENTS = ("image", "tensor", "classLabel", "class_label", "featuresDict", "features_dict")
MODES = {  # channels -> modes of Pillow that become so many without a loss, and the mode wanted
    1: ("L", ("1", "L")),
    2: ("LA", ("LA",)),
    3: ("RGB", ("1", "L", "P", "RGB", "CMYK", "YCbCr")),
    4: ("RGBA", ("RGBA",)),
}
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class Feature(NamedTuple):
    """One feature: how its value is read (of KINDS), its shape (None where that varies), dtype."""

    kind: str
    shape: tuple[int | None, ...]
    dtype: str
    encoding: str


def read_features(folder: Path) -> dict[str, Feature]:
    """The features of a prepared set by name.

    Raises:
      DataError: there is no such file, it cannot be read, or a feature is of no class of TFDS's.
    """
    path = folder / "features.json"
    try:
        given = json.loads(files.read_text(path, follow=True))
        top = _open_feature("", given)
        named = {"": given}
        if top.name == "FeaturesDict":
            named = dict(top.content["features"] if top.is_proto else top.content)
        return {name: _feature(_open_feature(name, given)) for name, given in named.items()}
    except _ForeignClass as error:
        raise DataError(f"{path}: {error}; prepare the set again.") from None
    except (OSError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); prepare the set again."
        ) from error


class _ForeignClass(Exception):
    """A class that is in no table."""


class _Opened(NamedTuple):
    name: str  # of its class, without the module
    content: dict[str, Any]
    is_proto: bool  # the content is a protocol buffer as JSON, not the older JSON


def _open_feature(feature: str, given: dict[str, Any]) -> _Opened:
    """One feature in any of the three forms; raises _ForeignClass."""
    name = next((given[key] for key in CLASSES if key in given), None)
    module, _, own = str(name).rpartition(".")
    if own not in KINDS or not f"{module}.".startswith(MODULE):
        raise _ForeignClass(
            f"the feature {feature!r} is of the class {name!r}, which is none of TFDS's own that "
            "are read, and nothing is imported by its name"
        )
    if "type" in given:
        content = given.get("content")
        is_proto = bool(given.get("proto_cls"))
        if isinstance(content, str):
            content = json.loads(content)
    else:
        inner = given.get("jsonFeature", given.get("json_feature"))
        is_proto = inner is None
        content = json.loads(inner["json"]) if inner is not None else _content(given)
    return _Opened(own, content or {}, is_proto)


def _content(given: dict[str, Any]) -> dict[str, Any]:
    return next((given[key] for key in CONTENTS if key in given), {})


def _feature(opened: _Opened) -> Feature:
    kind = KINDS[opened.name]
    if kind == "label":
        return Feature(kind, (), "int64", "none")
    if not kind:
        return Feature(kind, (), "", "none")
    given = opened.content.get("shape", ())
    given = given.get("dimensions", ()) if isinstance(given, dict) else given
    sizes = [-1 if size is None else int(size) for size in given or ()]
    shape = tuple(None if size < 0 else size for size in sizes)
    encoding = str(opened.content.get("encoding") or "none")
    return Feature(kind, shape, str(opened.content.get("dtype")), encoding.lower())


def check_image(features: dict[str, Feature], folder: Path) -> tuple[int, ...]:
    """The one shape of the feature 'image', uint8; raises DataError where there is none."""
    image = features.get("image")
    sizes = [size for size in image.shape if size is not None] if image else []
    is_read = image is not None and image.kind in ("image", "tensor") and image.dtype == "uint8"
    if image is None or not is_read or not sizes or len(sizes) < len(image.shape):
        raise DataError(
            f"{folder} has the features ({', '.join(map(repr, features))}), where a uint8 'image' "
            "of one fixed shape was wanted; resize it into an .npz and use npz:FILE."
        )
    if image.kind == "image" and (len(sizes) != 3 or sizes[2] not in MODES):
        raise DataError(
            f"{folder} has the feature 'image' of shape {tuple(sizes)}, where [H, W, C] with C of "
            "1 to 4 was wanted; prepare the set again."
        )
    return tuple(sizes)


def has_label(features: dict[str, Feature]) -> bool:
    """Whether there is a feature 'label' of one integer."""
    label = features.get("label")
    return (
        label is not None
        and label.kind in ("label", "tensor")
        and label.shape == ()
        and label.dtype in INTEGERS
    )


def decode(feature: Feature, values: Any) -> np.ndarray:
    """The value of a record, uint8 of the feature's shape; raises ValueError where it is none."""
    shape = tuple(size for size in feature.shape if size is not None)
    if feature.kind == "image":
        return _decode_image(_one(values), shape)
    if feature.encoding == "none":
        found = np.asarray(values)
        if found.dtype != np.int64 or ((found < 0) | (found > 255)).any():
            raise ValueError("a tensor of other numbers than its features say")
        return found.astype(np.uint8).reshape(shape)
    content = _one(values)
    if feature.encoding == "zlib":  # no more than it may have: a few bytes can unpack to gigabytes
        content = zlib.decompressobj().decompress(content, math.prod(shape) + 1)
    elif feature.encoding != "bytes":
        raise ValueError(f"a tensor in the encoding {feature.encoding!r}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def decode_label(values: Any) -> int:
    """The label of a record; raises ValueError where it is not one integer."""
    found = np.asarray(values)
    if found.shape != (1,) or found.dtype != np.int64:
        raise ValueError("a label that is not one integer")
    return int(found[0])


def _one(values: Any) -> bytes:
    if not isinstance(values, list) or len(values) != 1:
        raise ValueError("a value that is not one string of bytes")
    return values[0]


def _decode_image(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [H, W, C] of a PNG or JPEG of this shape; its size is known before it is unpacked."""
    from PIL import Image

    height, width, channels = shape
    mode, modes = MODES[channels]
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
        if image.size != (width, height) or image.mode not in modes:
            raise ValueError(
                f"an image {image.size[1]}x{image.size[0]} of Pillow's mode {image.mode!r}, "
                f"where its features say {height}x{width} of {channels} channels"
            )
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(shape)
