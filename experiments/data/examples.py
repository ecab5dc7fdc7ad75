"""Parses `tf.train.Example`, the protocol buffer in which TFDS stores a record, without TensorFlow.

The messages, from tensorflow/core/example/{example,feature}.proto, field numbers in brackets:
Example {Features [1]}, Features {map of key [1] to Feature [2], repeated [1]}, Feature {one of
BytesList [1], FloatList [2], Int64List [3]}, each list {repeated value [1]}.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# wire types
VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5
_FIXED = {FIXED64: 8, FIXED32: 4}  # bytes
# fields of a Feature
BYTES_LIST = 1
FLOAT_LIST = 2
INT64_LIST = 3


class Field(NamedTuple):
    """One field of a message: its number, its wire type, and its bytes, or its integer."""

    number: int
    wire: int
    value: memoryview
    integer: int


def parse_example(record: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """The features of a record by name: a list of bytes, or int64 or float32 of shape [n].

    Raises:
      ValueError: the record is no such message.
    """
    found: dict[str, list[bytes] | np.ndarray] = {}
    for example in _fields(memoryview(record)):
        for features in _fields(example.value) if example.number == 1 else ():
            entry = {field.number: field.value for field in _fields(features.value)}
            name = bytes(entry.get(1, b"")).decode()
            found[name] = _values(entry.get(2, memoryview(b"")))
    return found


def _values(feature: memoryview) -> list[bytes] | np.ndarray:
    """The values of a Feature; none are an empty list of bytes."""
    values: list[bytes] | np.ndarray = []
    for kind in _fields(feature):
        entries = [field for field in _fields(kind.value) if field.number == 1]
        if kind.number == BYTES_LIST:
            values = [bytes(entry.value) for entry in entries]
        elif kind.number == FLOAT_LIST:  # packed or not, four bytes each
            values = np.frombuffer(b"".join(entry.value for entry in entries), "<f4")
        elif kind.number == INT64_LIST:
            numbers = [number for entry in entries for number in _integers(entry)]
            values = np.array(numbers, np.uint64).view(np.int64)
    return values


def _integers(field: Field) -> Iterator[int]:
    """One integer, or those of a packed field."""
    if field.wire == VARINT:
        yield field.integer
    at = 0
    while field.wire == BYTES and at < len(field.value):
        number, at = _varint(field.value, at)
        yield number


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in their order; raises ValueError where it is cut short."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number = key >> 3
        wire = key & 7
        integer = 0
        start = at
        if wire == VARINT:
            integer, at = _varint(message, at)
        elif wire in _FIXED:
            at += _FIXED[wire]
        elif wire == BYTES:
            size, start = _varint(message, at)
            at = start + size
        else:
            raise ValueError(f"a field of the wire type {wire}")
        if at > len(message):
            raise ValueError("a field that runs past its end")
        yield Field(number, wire, message[start:at], integer)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer of 7 bits a byte, lowest first, that begins at a place, and where it ends."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & (2**64 - 1), at + i + 1
    raise ValueError("an integer without an end")
