"""Reports what is in a data set and what would be done to it, and trains nothing.

    python -m experiments.data --config=configs/table.py --config.data.name=csv:FILE
    python -m experiments.data --config=configs/vae.py --config.data.name=images:DIR

In at most ten lines: rows, columns or shape, what each is taken for and why, missing values, what
is left out, rows in two splits, ranges, and what is done to them (docs/data.md).
"""

from absl import flags

from experiments import cli, command_line, config_file, own_code, settings


def define_flags() -> None:
    """The flags of the command."""
    command_line.define_config_flag()
    own_code.define_flag()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if flags.FLAGS.config is None:
        raise cli.UserError(
            "--config is missing; try --config=configs/table.py, see --help for examples."
        )
    config = config_file.as_config(own_code.released(flags.FLAGS.config, flags.FLAGS.allow_code))
    settings.validate(config)
    from experiments.data import DataError, load, report_of

    try:
        dataset = load(config.data)
    except DataError as error:
        raise cli.UserError(str(error)) from None
    for line in report_of(dataset, config.data):
        print(line)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
