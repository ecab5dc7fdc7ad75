"""Fetching a file once: the first mirror that answers, a checksum, an atomic write; offline, an
error in seconds.
"""

import hashlib
import http.client
import os
import queue
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from experiments.data.base import DataError, say
from experiments.run.live import Count
from vi_jax import files

ANSWER_SECONDS = 3.0  # for all hosts together, the look-up of their names included
PART_BYTES = 2**18  # read at a time
STALL_SECONDS = 15.0  # without a byte, once a host has answered
_NO_ANSWER = (OSError, ValueError, http.client.HTTPException)  # urllib's own errors are OSErrors


def cache_folder(name: str) -> Path:
    """The user's cache for one data set, made if need be; raises DataError when it cannot be."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(root) / "vi_jax" / "data" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be made ({error.strerror}); set "
            "config.data.data_dir to a folder of yours."
        ) from error
    return folder


def first_answer(urls: Sequence[str], *, any_status: bool = False) -> str:
    """The first of `urls` that is there; raises DataError, with each host's reason, after
    ANSWER_SECONDS at most.

    With `any_status` a refusal by the host (404, say) is an answer too: there is a network, which
    was the question. All are asked at once, each in a daemon thread: a name look-up heeds no
    timeout, and must not hold up the exit.
    """
    answers: queue.Queue[tuple[str, Exception | None]] = queue.Queue()
    for url in urls:
        threading.Thread(target=_ask, args=(url, ANSWER_SECONDS, answers), daemon=True).start()
    reasons = dict.fromkeys(urls, f"no answer in {ANSWER_SECONDS:g} s")
    deadline = time.monotonic() + ANSWER_SECONDS
    for _ in urls:
        try:
            url, error = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if error is None or (any_status and isinstance(error, HTTPError)):
            return url
        reasons[url] = str(error)
    raise DataError(
        "; ".join(f"{urlsplit(url).netloc}: {reason}" for url, reason in reasons.items())
    )


def _ask(url: str, seconds: float, answers: queue.Queue[tuple[str, Exception | None]]) -> None:
    """Puts (url, None) or (url, why not) into `answers`."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            answers.put((url, None))
    except _NO_ANSWER as error:
        answers.put((url, error))


def download(url: str, path: Path, sha256: str) -> None:
    """Writes `url` to `path`, whole and with the right checksum or not at all; raises DataError."""
    say(f"fetching {url} into {path.parent}")
    try:
        with urllib.request.urlopen(url, timeout=STALL_SECONDS) as response:
            content = _read(response, path.name)
    except _NO_ANSWER as error:
        raise DataError(
            f"{url} could not be fetched ({error}); try again, or put {path.name} in {path.parent}."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{url} came with sha256 {found[:12]}... ({len(content)} bytes) where "
            f"{sha256[:12]}... was wanted; "
            f"something between here and there changes it: get {path.name} another way and put "
            f"it in {path.parent}."
        )
    _write(path, content)


def _read(response: Any, name: str) -> bytes:
    """All of a response; its rate and time left are shown where it takes long."""
    length = int(response.headers.get("Content-Length") or 0)
    parts = []
    with Count(f"fetching {name}", length // 1_000, "kB") as count:
        while part := response.read(PART_BYTES):
            parts.append(part)
            count.add(len(part) / 1_000)
    return b"".join(parts)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a reader sees the whole file or none."""
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); set config.data.data_dir to a folder "
            "of yours."
        ) from error
