"""Approximates the posterior of a NumPyro model, says whether to trust it, and leaves draws and
figures.

    python -m experiments.posterior --config=configs/posterior/eight_schools.py
    python -m experiments.posterior --config=configs/posterior/breast_cancer.py \\
        --config.method=pathfinder
    python -m experiments.posterior --config=configs/posterior/file.py:my_models.py:my_model \\
        --config.data=FILE.npz    # a model of your own
    python -m experiments.posterior --config=configs/posterior/posteriordb.py:arK-arK \\
        --config.data_dir=CLONE

--config.data names an .npz, whose arrays the model is called with by their names: np.savez(FILE,
x=x, y=y) for my_model(x, y). The run folder holds config.json, environment.json, result.json (the
verdict and every number, the details too), moments.json, history.json, draws.npz (weighted draws of
every site, with their log-weights) and figures/.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, command_line, posterior_models
from experiments.fit_progress import FitProgress, totals_of
from experiments.rooms import METHOD, ROOMS
from experiments.run import heartbeat

RESULT = "result.json"
MOMENTS = "moments.json"
HISTORY = "history.json"
DRAWS = "draws.npz"
PATIENCE = 5.0  # seconds without a sign before a phase of a fit is named
COMBINE = ("best", "stack")  # as in vi.fit
FIELDS = {
    "name": str,
    "seed": int,
    "model": str,
    "data": str,
    "data_dir": str,
    "num_starts": int,
    "combine": str,
    "num_draws": int,
    "float64": bool,
}


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    command_line.define_config_flag()
    flags.DEFINE_string(
        "workdir", "", "The run folder; runs/NAME-HASH, the hash that of the config, if not given."
    )
    flags.DEFINE_bool("overwrite", False, "Delete the run that is in the folder and start anew.")
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if flags.FLAGS.config is None:
        raise cli.UserError(
            "--config is missing; try --config=configs/posterior/eight_schools.py, see --help "
            "for examples."
        )
    config = flags.FLAGS.config
    validate(config)
    cli.set_up_jax()
    cli.find_devices()
    from experiments.run.folder import default_folder, open_folder

    workdir = Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else default_folder(config)
    open_folder(workdir, config, overwrite=flags.FLAGS.overwrite)
    approximate(config, workdir)
    return 0


def validate(config: Any) -> None:
    """Raises UserError for the first thing in a config that cannot be meant."""
    for field, kind in FIELDS.items():
        if field not in config:
            raise cli.UserError(
                f"the config has no field {field}; configs/posterior/eight_schools.py has all of "
                "them."
            )
        if not isinstance(config[field], kind) or (kind is int and isinstance(config[field], bool)):
            raise cli.UserError(
                f"config.{field} is {config[field]!r}; it has to be of type {kind.__name__}."
            )
    ranges = {
        "num_starts": (1, cli.MAX_COUNT),
        "num_draws": (25, cli.MAX_COUNT),
        "seed": (0, cli.MAX_SEED),
    }
    for field, (least, most) in ranges.items():
        if not least <= config[field] <= most:
            raise cli.UserError(
                f"config.{field} is {config[field]}; it has to be at least {least} and at most "
                f"{most:,}."
            )
    if config.combine not in COMBINE:
        raise cli.UserError(
            f"config.combine is {config.combine!r}; it can be {', '.join(COMBINE)}."
        )
    posterior_models.check_name(config.model)
    posterior_models.check_data(config.model, config.data)
    ROOMS.check(METHOD, config.get("method"), where="config.method")


def approximate(config: Any, workdir: Path) -> None:
    """Fits, prints and saves."""
    import jax
    import numpy as np

    import vi_jax as vi
    from experiments import files
    from experiments.figures import posterior as figures
    from experiments.run import estimate
    from experiments.run.contents import DATA
    from vi_jax.targets import LocalTarget, TargetError

    if config.float64:
        jax.config.update("jax_enable_x64", True)
    with heartbeat.phase("reading the model and its data"):
        model, reference = posterior_models.get_model(config.model, config.data_dir, config.data)
    method = ROOMS.build(METHOD, config.method, where="config.method", facts={})

    try:
        with heartbeat.phase("tracing the model"), posterior_models.its_errors(config.model):
            target = vi.targets.from_numpyro(model)
        if isinstance(target, LocalTarget):
            raise cli.UserError(
                "the model's subsampled plate holds latent sites; this command has no figures "
                "for those: use vi.fit."
            )
        estimate.require_fit(config, target.size, 0 if method is None else method.num_steps)
        print(f"{config.name}: {target.size:,} unconstrained latents", file=sys.stderr)
        files.write_json(
            workdir / DATA, posterior_models.fingerprint(config.model, config.data)
        )  # from here on the folder is this config's
        key = jax.random.key(config.seed)
        with (
            heartbeat.phase("choosing a method", patience=PATIENCE),
            posterior_models.its_errors(config.model),
        ):
            progress = FitProgress(totals_of(method, target))
            result = vi.fit(
                key,
                target,
                method,
                num_starts=config.num_starts,
                combine=config.combine,
                num_draws=config.num_draws,
                mesh=_mesh(config.num_starts),
                report=progress,
                report_every=None,
                on_phase=heartbeat.rename,
            )
            progress.close()
    except (TargetError, FloatingPointError) as error:
        raise cli.UserError(str(error)) from None

    with heartbeat.phase("judging the answer by its weights"):
        print(result)
    with heartbeat.phase("constraining the samples"):
        sites = {
            name: np.asarray(value)
            for name, value in jax.jit(jax.vmap(target.constrain))(result.weighted.u).items()
        }
    log_weights = np.asarray(result.weighted.log_weights)
    trusted = result.diagnostics.trusted
    with heartbeat.phase("taking the moments"):
        moments = result.moments()
    print(_table(moments))
    with heartbeat.compiling("checking the guide: the ELBO's gradient, linear response"):
        print(result.details)
    if reference is not None:
        print(_against(reference, sites, log_weights if trusted else None))
    files.write_json(workdir / RESULT, result.report())
    files.write_json(
        workdir / MOMENTS, jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), moments)
    )
    files.write_json(
        workdir / HISTORY,
        {name: np.asarray(value).tolist() for name, value in result.history.items()},
    )
    arrays: dict[str, Any] = {
        "log_weights": log_weights,
        **{f"site/{name}": value for name, value in sites.items()},
    }
    with heartbeat.phase(f"writing {DRAWS}"):
        files.write_npz(workdir / DRAWS, arrays)
    weights = np.exp(log_weights) if trusted else np.full(len(log_weights), 1 / len(log_weights))
    with heartbeat.phase("drawing the figures"):
        files.make_folder(workdir / "figures")
        drawn = figures.draw_all(workdir / "figures", result, sites, weights, title=config.name)
    print(f"  {len(drawn)} figures; run folder {workdir}")


def _mesh(num_starts: int) -> Any:
    """All devices where the starts lie evenly over them; None for one."""
    import jax

    import vi_jax as vi

    devices = jax.device_count()
    if devices == 1 or num_starts == 1:
        return None
    if num_starts % devices:
        print(
            f"note: {num_starts} starts on one of {devices} devices; a multiple of {devices} "
            "would take them all.",
            file=sys.stderr,
        )
        return None
    print(f"{num_starts} starts over {devices} devices", file=sys.stderr)
    return vi.shard.make_mesh()


def _table(moments: dict[str, Any], most: int = 30) -> str:
    """Site, mean and standard deviation, a row for each number."""
    import numpy as np

    rows = []
    for name, mean in moments["mean"].items():
        for index in np.ndindex(mean.shape):
            place = f"[{','.join(map(str, index))}]" if index else ""
            rows.append(
                f"  {name + place:<24}{mean[index]:>12.4f} {moments['sd'][name][index]:>12.4f}"
            )
    how = "by smoothed importance weights" if moments["corrected"] else "of the guide's own draws"
    more = [f"  ... and {len(rows) - most:,} more in {MOMENTS}"] if len(rows) > most else []
    return "\n".join([f"  {'site':<24}{'mean':>12} {'sd':>12}   ({how})", *rows[:most], *more])


def _against(reference: Any, sites: dict[str, Any], log_weights: Any) -> str:
    import numpy as np

    x = np.asarray(reference.flatten(sites), float)
    w = np.full(len(x), 1 / len(x)) if log_weights is None else np.exp(log_weights)
    mean = w @ x
    sd = np.sqrt(w @ (x - mean) ** 2)
    off = np.abs(mean - reference.mean) / reference.sd
    ratio = np.abs(sd / reference.sd - 1)
    return (
        f"  against the reference draws: worst mean error {off.max():.3f} sd "
        f"({reference.names[int(off.argmax())]}), "
        f"worst sd error {100 * ratio.max():.1f} % ({reference.names[int(ratio.argmax())]})"
    )


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
