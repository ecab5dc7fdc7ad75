"""What the commands that read a run share: their flags, its config, and the folder that they write
to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import cli, own_code, rooms
from experiments.errors import UserError

CHECKPOINT = "latest (the newest good one), best (see config.train.keep_best) or a step."


class Whole(NamedTuple):
    """A flag that is a whole number."""

    name: str
    default: int
    least: int
    text: str


class Opened(NamedTuple):
    """A run that a command reads."""

    config: Any
    workdir: Path
    out: Path  # where the command writes


def define_flags(
    *, split: tuple[str, str] | None = None, part: str = "", numbers: Sequence[Whole] = ()
) -> None:
    """The flags of such a command; not at import, so that the commands can be imported side by
    side.

    Args:
      split: default and help of --split; none if not given.
      part: of the run folder, that --out is if not given; no --out if empty.
      numbers: flags of its own.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    if split is not None:
        flags.DEFINE_string("split", *split)
    if part:
        text = f"The folder to write to; WORKDIR/{part} if not given."
        flags.DEFINE_string("out", "", text)
    flags.DEFINE_string("checkpoint", "latest", CHECKPOINT)
    flags.DEFINE_string("data_dir", "", "Where the data are, if not where the run found them.")
    for name, default, least, text in numbers:
        flags.DEFINE_integer(name, default, text, lower_bound=least, upper_bound=cli.MAX_COUNT)
    flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, upper_bound=cli.MAX_SEED)
    own_code.define_flag()
    cli.define_common_flags()


def open_run(fields: dict[str, Any] | None = None, *, part: str = "") -> Opened:
    """The run of --workdir on the devices of this machine, with JAX set up.

    Args:
      fields: of its config that are set to other values, where those are not empty.
      part: as of `define_flags`.

    Raises:
      UserError: there is no run, or no checkpoint of it, its code is not allowed, or a field cannot
        be meant.
    """
    workdir = Path(cli.require("workdir"))
    args = flags.FLAGS
    from experiments import settings
    from experiments.run.contents import open_part
    from experiments.run.record import read_run

    config = read_run(workdir, args.allow_code)
    command = rooms.command_of(config)
    if command not in (None, "train"):
        raise UserError(
            f"{workdir} is a run of experiments.{command}; this command reads those of "
            "experiments.train."
        )
    given = {"data.data_dir": args.data_dir, **(fields or {})}
    settings.change(config, {field: value for field, value in given.items() if value})
    # the devices of this machine, not those of the run
    settings.change(config, {"mesh.data": -1, "mesh.model": 1})
    settings.validate(config)
    out = workdir
    if part:
        out = open_part(Path(args.out) if args.out else workdir / part, part)
    cli.set_up_jax()
    cli.find_devices()
    from experiments.run import session

    session.require_checkpoint(config, workdir, args.checkpoint)
    return Opened(config, workdir, out)
