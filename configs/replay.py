"""Repeats a run exactly: its resolved config, from the config.json of its folder.

    python -m experiments.train --config=configs/replay.py:runs/NAME/config.json

A record is data: it runs no code that it names. Functions of somebody's own have to be allowed by
who repeats the run, --allow_code=FILE.py:FUNCTION; the model of a posterior that is a function in a
Python file has to be named once more, --config.model=file:PATH.py:FUNCTION.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from experiments import own_code
from experiments.cli import UserError
from experiments.posteriors.models import FILE, RECORDED
from experiments.run.record import fields_of, refuse_old
from vi_jax import files


def get_config(path: str) -> ConfigDict:
    """The config in the file at `path`."""
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    try:
        plain = dict(json.loads(files.read_text(file, follow=True)))
        if str(plain.get("model")).startswith(FILE):
            plain["model"] = RECORDED + plain["model"]
        refuse_old(plain, file)
        fields = fields_of(plain, file)
        marked = own_code.marked(fields, own_code.names(fields))
        return ConfigDict(_tuples(marked), type_safe=False)
    except UserError as error:
        raise ValueError(str(error)) from None
    except FileNotFoundError:
        raise ValueError(
            f"there is no file {file}; name the config.json of a run folder."
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is no config: {error}") from None


def _tuples(value: object) -> object:
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(value) if isinstance(value, list) else value
