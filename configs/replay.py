"""Repeats a run exactly: its resolved config, from the config.json of its folder.

python -m experiments.train --config=configs/replay.py:runs/NAME/config.json
"""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    """The config in the file at `path`."""
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    if not file.exists():
        raise ValueError(f"there is no file {file}; name the config.json of a run folder.")
    try:
        plain = json.loads(file.read_text())
        return ConfigDict(_tuples(plain))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no config: {error}") from None


def _tuples(value: object) -> object:
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(value) if isinstance(value, list) else value
