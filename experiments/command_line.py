"""The command line, read into absl's flags, and the config that it names."""

import re
from collections.abc import Callable
from pathlib import Path

from absl import flags

from experiments.errors import UserError


def define_config_flag() -> None:
    """--config, of the commands that are given one; `parse` puts the config in its place."""
    flags.DEFINE_string(
        "config", None, "The config, FILE.py[:VARIANT]; --config.FIELD=VALUE sets a field."
    )


def define_folder_flags() -> None:
    """--workdir and --overwrite, of the commands that make a run folder."""
    flags.DEFINE_string(
        "workdir", "", "The run folder; runs/NAME-HASH, the hash that of the config, if not given."
    )
    flags.DEFINE_bool("overwrite", False, "Delete the run that is in the folder and start anew.")


def parse(argv: list[str], define_flags: Callable[[], None] = lambda: None) -> None:
    """Defines the flags and reads them, the config file and the overrides of its fields.

    Raises:
      UserError: what does not fit, in a sentence.
    """
    from experiments import config_file, overrides

    _require_flag_files(argv)
    define_flags()
    try:
        words = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        words, given = overrides.split(_with_all_kinds(words))
        rest = flags.FLAGS(words)[1:]
    except flags.Error as error:
        raise UserError(_sentence(str(error))) from None
    except (OSError, ValueError) as error:  # a flag file that is no text
        raise UserError(f"the flags cannot be read: {_sentence(str(error))}") from None
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; options begin with --, see --help.")
    if "config" not in flags.FLAGS:
        if given:
            raise UserError(f"this command has no --config.{given[0].field}; see --help.")
    elif flags.FLAGS["config"].value is not None:
        flags.FLAGS["config"].value = config_file.load(flags.FLAGS["config"].value, given)


def _with_all_kinds(argv: list[str]) -> list[str]:
    """The words with a --list that names no kind asking for all of them."""
    words = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        is_alone = word in ("--list", "-list") and following.startswith("-")
        words.append("--list=all" if is_alone else word)
    return words


def _require_flag_files(argv: list[str]) -> None:
    """Raises UserError for a --flagfile=FILE that is no regular file: a pipe would wait."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        found = re.fullmatch(r"--?flagfile(?:=(.*))?", argument, re.DOTALL)
        if not found:
            continue
        name = following if found[1] is None else found[1]
        if not Path(name).expanduser().is_file():
            raise UserError(f"there is no flag file {name!r}; --flagfile wants a file of flags.")


def _sentence(text: str) -> str:
    """The telling part of a flag parser's message, in one line."""
    text = re.sub(r"^ERROR:: ", "", text.strip())
    text = re.sub(
        r"^flag (--\S+): invalid literal for (\w+)\(\).*",
        r"\1 is not of the field's type, \2",
        text,
    )
    text = " ".join(text.replace("\\'", "'").split())
    return text[1:-1] if text[:1] == text[-1:] == "'" else text
