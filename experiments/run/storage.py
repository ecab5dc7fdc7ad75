"""What Orbax and its storage need to be told: to be quiet, to read a damaged file once, to say why
they failed.
"""

import functools
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from vi_jax import files


def read_once(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's arrays; reads them one after the other, and raises at the first
    that is damaged.

    Orbax reads them at once, and of a damaged file its threads go on to print hundreds of
    tracebacks.
    """
    import tensorstore as ts

    files.require_regular_tree(folder)
    if not (folder / "manifest.ocdbt").exists():
        raise FileNotFoundError(f"{folder / 'manifest.ocdbt'} is missing")
    # a path, not a URL: in that a character of the name might mean something else
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    keys = [key.decode().rpartition("/") for key in ts.KvStore.open(store).result().list().result()]
    arrays = {
        name: {"driver": "zarr3", "kvstore": {**store, "path": f"{name}/"}}
        for name, _, file in keys
        if file == "zarr.json"
    }
    return {name: ts.open(spec).result().read().result().shape for name, spec in arrays.items()}


def reason(error: Exception) -> str:
    """The first line of an error; of a long one its beginning and its end, where storage says the
    cause.
    """
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text if len(text) <= 240 else f"{text[:100]} ... {text[-120:]}"


def saving_context() -> Any:
    """A context for Orbax in which a save makes its folders before it returns.

    Else threads that no exit of the process ends wait for the folders: for minutes where they
    cannot be made, as on a full disk.
    """
    import orbax.checkpoint.experimental.v1 as ocp

    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    return context


@functools.cache
def hush() -> None:
    """Orbax logs each save and what it raises as well; of writes and reads that it gave up, each
    array prints a traceback more.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", r"coroutine '[\w.<>]+' was never awaited", RuntimeWarning)
    hook = sys.unraisablehook

    def quiet(raised: Any) -> None:
        given_up = str(raised.exc_value) == "Event loop is closed" or isinstance(
            raised.exc_value.__cause__, GeneratorExit
        )
        if not given_up:
            hook(raised)

    sys.unraisablehook = quiet
