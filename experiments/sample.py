"""Draws from the run in a folder: prior samples, reconstructions and walks between examples, as PNG
and as numbers.

    python -m experiments.sample --workdir=runs/NAME
    python -m experiments.sample --workdir=runs/NAME --num=256 --seed=1 --out=pictures

Writes samples.png, reconstructions.png, interpolation.png (and the latent plane) with samples.npz,
which holds `z`, `samples`, `originals`, `reconstructions`, `walks`: images as grey in [0, 1], E[x |
z].
"""

from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, heartbeat


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    flags.DEFINE_string("out", "", "The folder to write to; WORKDIR/samples if not given.")
    flags.DEFINE_string(
        "checkpoint",
        "latest",
        "latest (the newest good one), best (see config.train.keep_best) or a step.",
    )
    flags.DEFINE_string("data_dir", "", "Where the data are, if not where the run found them.")
    flags.DEFINE_integer("num", 64, "Prior samples.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0)
    cli.define_common_flags()


def main() -> int:
    """The command."""
    workdir = Path(cli.require("workdir"))
    args = flags.FLAGS
    from experiments import rundir, settings

    config = rundir.read_config(workdir)
    with config.unlocked():
        config.data.data_dir = args.data_dir or config.data.data_dir
    settings.validate(config)
    out = Path(args.out) if args.out else workdir / "samples"
    try:
        out.mkdir(parents=True, exist_ok=True)
        rundir.check_part(out, "samples", writes=True)
    except OSError as error:
        raise cli.UserError(
            f"--out={out} cannot be written ({error.strerror}); name a folder of your own."
        ) from None
    cli.set_up_jax()
    sample(config, workdir, out, num=args.num, seed=args.seed, checkpoint=args.checkpoint)
    return 0


def sample(
    config, workdir: Path, out: Path, *, num: int, seed: int, checkpoint: str = "latest"
) -> None:
    """Draws, and writes the pictures and samples.npz."""
    import jax
    import numpy as np

    from experiments import build, files, measure, pictures, session

    dataset = session.load_data(config)
    model = session.make_model(config, dataset)
    params, step = session.trained_params(config, model, workdir, checkpoint)
    x, labels = session.evaluation_set(config, dataset, config.eval.split)
    key_samples, key_measures = jax.random.split(jax.random.key(seed))
    with heartbeat.compiling(f"evaluating the {config.eval.split} split"):
        measures = measure.make_measure(model, config)(key_measures, params, x)
    decode_mean = pictures.make_decode_mean(model, config, dataset.num_levels)

    with heartbeat.compiling("computing the samples and what the figures show"):
        z, drawn = pictures.samples(key_samples, model, params, decode_mean, num)
        left, right = pictures.pairs(labels, x.shape[0])
        shown = x[:20]
        arrays: Any = {
            "z": z,
            "samples": drawn,
            "originals": build.to_unit(config, np.asarray(shown), dataset.num_levels),
            "reconstructions": decode_mean(params, measures.latent_mean[:20]),
            "walks": pictures.walk(
                params, decode_mean, measures.latent_mean[left], measures.latent_mean[right]
            ),
        }
        paths = pictures.draw_all(
            out,
            key=key_samples,
            model=model,
            params=params,
            config=config,
            num_levels=dataset.num_levels,
            x=x,
            labels=labels,
            measures=measures,
            num_samples=num,
        )
        files.write_npz(out / "samples.npz", arrays, compressed=True)
    print(
        f"{config.name}, step {step:,}: {num:,} prior samples; {len(paths)} figures and "
        f"samples.npz in {out}"
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__ or "")
