"""Writes the parameters of a run to one file for other programs.

    python -m experiments.export --workdir=runs/NAME
    python -m experiments.export --workdir=runs/NAME --checkpoint=best --out=exported

Writes params.safetensors: every array of the parameters that evaluation uses (averaged ones, where
config.train.ema is on) under its path, such as encoder.0.kernel, with the step and the version.
"""

from absl import flags

from experiments import cli, of_run

FORMATS = ("safetensors",)
FILE = "params.safetensors"


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(part="exported")
    flags.DEFINE_enum("format", FORMATS[0], FORMATS, "Of the file.")


def main() -> int:
    """The command."""
    (config, workdir, out) = of_run.open_run(part="exported")
    from experiments.run import session
    from vi_jax import __version__, files

    model = session.make_model(config, session.load_data(config))
    params, step = session.trained_params(config, model, workdir, flags.FLAGS.checkpoint)
    words = {"name": config.name, "step": str(step), "vi_jax": __version__}
    files.save_safetensors(out / FILE, params, words)
    num = sum(leaf.size for leaf in files.by_path(params).values())
    print(f"{config.name}, step {step:,}: {num:,} parameters in {out / FILE}")
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
