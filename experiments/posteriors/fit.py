"""The fit of a posterior: vi.fit, the verdict that is printed, and the files that are left."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vi_jax as vi
from experiments import cli, terminal
from experiments.figures import posterior as figures
from experiments.posteriors import models, tables
from experiments.posteriors.progress import FitProgress, totals_of
from experiments.rooms import METHOD, ROOMS
from experiments.run import estimate, heartbeat, record
from experiments.run.contents import DATA, check_part
from vi_jax import files
from vi_jax.targets import LocalTarget, TargetError

RESULT = "result.json"
MOMENTS = "moments.json"
HISTORY = "history.json"
DRAWS = "draws.npz"
SAVED = "result"  # the folder that vi.load_result reads
PATIENCE = 5.0  # seconds without a sign before a phase of a fit is named


class Fitted(NamedTuple):
    """What a fit gives, on the host."""

    result: Any  # of vi.fit
    sites: dict[str, np.ndarray]  # weighted samples of every site, [num_draws, ...]
    log_weights: np.ndarray  # of them, [num_draws]
    moments: dict[str, Any]

    @property
    def trusted(self) -> bool:
        """Whether the weights may be used."""
        return self.result.diagnostics.trusted


def approximate(config: Any, workdir: Path) -> None:
    """Fits, prints and saves.

    Raises:
      UserError: the model, its data or the fit do not go together, in a sentence.
    """
    if config.float64:
        jax.config.update("jax_enable_x64", True)
    with heartbeat.phase("reading the model and its data"):
        model, reference = models.get_model(config.model, config.data_dir, config.data)
    method = ROOMS.build(METHOD, config.method, where="config.method", facts={})
    # 1. the fit
    try:
        target = _target(model)
        result = _fit(config, workdir, target, method)
    except (TargetError, FloatingPointError) as error:
        raise cli.UserError(str(error)) from None
    # 2. the verdict
    with heartbeat.phase("judging the answer by its weights"):
        print(result)
    fitted = _on_host(target, result)
    print(tables.moments_table(fitted.moments))
    with heartbeat.compiling("checking the guide: the ELBO's gradient, linear response"):
        print(result.details)
    if reference is not None:
        log_weights = fitted.log_weights if fitted.trusted else None
        print(tables.against(reference, fitted.sites, log_weights))
    # 3. what is left in the folder
    _save(workdir, fitted)
    num_figures = _draw(workdir, config.name, fitted)
    print(f"  {num_figures} figures; run folder {workdir}")


def show(workdir: Path) -> None:
    """Prints the verdict and the moments of a fit again; nothing of its folder is run.

    Raises:
      UserError: the folder holds no fit that was saved.
    """
    if record.read_config(workdir).get("float64"):
        jax.config.update("jax_enable_x64", True)
    check_part(workdir / SAVED, SAVED, writes=False)
    try:
        result = vi.load_result(workdir / SAVED)
    except ValueError as error:
        raise cli.UserError(str(error)) from None
    print(result)
    print(tables.moments_table(result.moments()))


def _target(model: Any) -> Any:
    with heartbeat.phase("tracing the model"):
        target = vi.targets.from_numpyro(model)
    if isinstance(target, LocalTarget):
        raise cli.UserError(
            "the model's subsampled plate holds latent sites; this command has no figures "
            "for those: use vi.fit."
        )
    return target


def _fit(config: Any, workdir: Path, target: Any, method: Any) -> Any:
    """The result of vi.fit; records the data first, from when on the folder is this config's."""
    estimate.require_fit(config, target.size, 0 if method is None else method.num_steps)
    terminal.say(f"{config.name}: {target.size:,} unconstrained latents")
    files.write_json(workdir / DATA, models.fingerprint(config.model, config.data))
    with heartbeat.phase("choosing a method", patience=PATIENCE):
        progress = FitProgress(totals_of(method, target))
        result = vi.fit(
            jax.random.key(config.seed),
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
    return result


def _on_host(target: Any, result: Any) -> Fitted:
    with heartbeat.phase("constraining the samples"):
        constrained = jax.jit(jax.vmap(target.constrain))(result.weighted.u)
        sites = {name: np.asarray(value) for name, value in constrained.items()}
    with heartbeat.phase("taking the moments"):
        moments = result.moments()
    return Fitted(result, sites, np.asarray(result.weighted.log_weights), moments)


def _save(workdir: Path, fitted: Fitted) -> None:
    """Writes the numbers of a fit."""
    moments = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), fitted.moments)
    history = {name: np.asarray(value).tolist() for name, value in fitted.result.history.items()}
    files.write_json(workdir / RESULT, fitted.result.report())
    files.write_json(workdir / MOMENTS, moments)
    files.write_json(workdir / HISTORY, history)
    sites = {f"site/{name}": value for name, value in fitted.sites.items()}
    with heartbeat.phase(f"writing {DRAWS}"):
        files.write_npz(workdir / DRAWS, {"log_weights": fitted.log_weights, **sites})
    with heartbeat.phase(f"writing {SAVED}"):
        fitted.result.save(workdir / SAVED)


def _draw(workdir: Path, title: str, fitted: Fitted) -> int:
    """Draws the figures, and returns how many there are."""
    num = len(fitted.log_weights)
    weights = np.exp(fitted.log_weights) if fitted.trusted else np.full(num, 1 / num)
    folder = workdir / "figures"
    with heartbeat.phase("drawing the figures"):
        files.make_folder(folder)
        drawn = figures.draw_all(folder, fitted.result, fitted.sites, weights, title=title)
    return len(drawn)


def _mesh(num_starts: int) -> Any:
    """All devices where the starts lie evenly over them; None for one."""
    devices = jax.device_count()
    if devices == 1 or num_starts == 1:
        return None
    if num_starts % devices:
        terminal.say(
            f"note: {num_starts} starts on one of {devices} devices; a multiple of {devices} "
            "would take them all.",
        )
        return None
    terminal.say(f"{num_starts} starts over {devices} devices")
    return vi.shard.make_mesh()
