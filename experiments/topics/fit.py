"""The fit of a topic model: corpus, check, sweeps, and the files that are left."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vi_jax as vi
from experiments import cli
from experiments.figures import topics as figures
from experiments.run import heartbeat
from experiments.run.live import Count
from experiments.run.stopping import Stop
from experiments.topics import outputs, sweeps
from experiments.topics.config import CTM
from experiments.topics.load import Loaded, check_data, load, report
from vi_jax import files
from vi_jax.topics import memoized, svi
from vi_jax.topics.svi import Schedule

METRICS = "metrics.jsonl"
STATE = "state.npz"  # of a fit that has not ended, to go on from


def run(config: Any, workdir: Path, *, resumed: bool, stop: Stop) -> None:
    """Fits, prints and saves.

    Raises:
      UserError: the corpus cannot be read, or does not go with the config.
    """
    loaded = load(config)
    check_data(workdir, loaded)
    for line in report(loaded, config.model.num_topics):
        print(line)
    with stop.deferred():  # which ends the command where a signal came, after the save
        fit = _fit(config, workdir, loaded, resumed=resumed, stop=stop)
    print(fit)
    with heartbeat.phase("measuring the topics"):
        summary = outputs.summarise(fit, loaded)
    for line in outputs.lines(summary):
        print(line)
    is_correlated = config.model.method == CTM
    arrays = {"lambda": np.asarray(fit.topics)}
    if is_correlated:
        arrays = {"topics": arrays["lambda"], "mean": fit.mean, "covariance": fit.covariance}
    else:
        arrays |= {"alpha": fit.alpha, "eta": fit.eta}
    outputs.save(workdir, fit, loaded, summary, arrays)
    with heartbeat.phase("measuring the shares of documents"):
        evidence = outputs.save_evidence(workdir, config, fit, loaded)
    if evidence is not None:
        print(evidence.found.verdict)
    with heartbeat.phase("drawing"):
        rows = sweeps.read_metrics(workdir / METRICS)
        files.make_folder(workdir / "figures")
        paths = figures.draw_all(workdir / "figures", config.name, fit, loaded)
        if is_correlated and fit.num_topics > 2:
            draw_correlations(workdir, config.name, fit, loaded)
        path = workdir / "figures" / "learning_curves.png"
        paths.append(figures.learning_curves(path, rows, title=f"{config.name}: learning curves"))
        if evidence is not None:
            path = workdir / "figures" / "k_hat.png"
            title = f"{config.name}: whose shares can be read"
            paths.append(figures.k_hats(path, evidence.found, evidence.lengths, title=title))
    (workdir / STATE).unlink(missing_ok=True)
    print(f"  {len(paths)} figures; run folder {workdir}")


def draw_correlations(workdir: Path, name: str, fit: vi.topics.CTM, loaded: Loaded) -> None:
    """The correlations of the model, in the place of those of shares."""
    words = fit.top_words(loaded.corpus.vocab, 1)
    figures.correlation_matrix(
        workdir / "figures" / "correlations.png",
        np.asarray(fit.correlation, np.float64),
        [f"{topic}: {some[0]}" for topic, some in enumerate(words)],
        title=f"{name}: topics together",
        note="Correlation of topics in the model: of z less its mean over topics, theta = "
        "softmax(z); the diagonal is left out.",
    )


def _fit(config: Any, workdir: Path, loaded: Loaded, *, resumed: bool, stop: Stop) -> Any:
    """The fitted model; each sweep is a line of metrics.jsonl, and the state is saved now and
    then, and at a stop.

    Raises:
      UserError: the model and the corpus do not go together, in a sentence.
    """
    model = config.model
    (done, state) = _saved(workdir / STATE, model.method) if resumed else (0, None)
    rows = sweeps.keep_metrics(workdir / METRICS, done)
    record = _Record(workdir, config.fit, stop, rows[-1]["seconds"] if rows else 0.0)
    with Count("sweeps", config.fit.num_sweeps - done, "sweeps", first=0.0) as count:

        def after_sweep(progress: vi.topics.Progress) -> bool:
            count.add(1)
            return record.after_sweep(progress)

        try:
            if model.method == CTM:
                return vi.topics.fit_ctm(
                    jax.random.key(config.seed),
                    loaded.train,
                    num_topics=model.num_topics,
                    eta=model.eta or None,
                    valid=loaded.halves,
                    valid_every=config.fit.measure_every,
                    callback=after_sweep,
                    num_sweeps=config.fit.num_sweeps,
                    tolerance=config.fit.tolerance,
                    resume=state,
                )
            return vi.topics.fit_lda(
                jax.random.key(config.seed),
                loaded.train,
                num_topics=model.num_topics,
                method=model.method,
                alpha=model.alpha,
                eta=model.eta or None,
                num_starts=model.num_starts,
                valid=loaded.halves,
                valid_every=config.fit.measure_every,
                callback=after_sweep,
                num_sweeps=config.fit.num_sweeps,
                tolerance=config.fit.tolerance,
                batch_size=config.fit.batch_size,
                schedule=Schedule(kappa=config.fit.kappa, tau0=config.fit.tau0),
                resume=state,
            )
        except ValueError as error:
            raise cli.UserError(str(error)) from None


class _Record:
    """What is written after each sweep."""

    def __init__(self, workdir: Path, spec: Any, stop: Stop, seconds: float) -> None:
        """`seconds` are those before, of a fit that goes on."""
        self._workdir = workdir
        self._pace = 60.0 * spec.checkpoint_minutes
        self._stop = stop
        self._seconds = seconds
        self._saved_at = time.monotonic()

    def after_sweep(self, progress: vi.topics.Progress) -> bool:
        """A line of metrics, and the state where it is due; True where the fit is to stop."""
        sweeps.append_metrics(self._workdir / METRICS, progress, self._seconds)
        asked = self._stop.asked()
        is_due = self._pace > 0 and time.monotonic() - self._saved_at > self._pace
        if asked or is_due:
            _save(self._workdir / STATE, progress.sweep, progress.state)
            self._saved_at = time.monotonic()
        return asked


def _save(path: Path, sweep: int, state: Any) -> None:
    leaves = jax.tree.leaves(jax.device_get(state))
    arrays = {f"leaf_{number}": leaf for number, leaf in enumerate(leaves)}
    files.write_npz(path, {"sweep": sweep, **arrays})


def _saved(path: Path, method: str) -> tuple[int, Any]:
    """The sweeps and the state of a fit that was stopped; 0 and None where there is none."""
    if not files.kind(path):
        return 0, None
    with files.read_npz(path) as arrays:
        leaves = [arrays[f"leaf_{number}"] for number in range(len(arrays.files) - 1)]
        sweep = int(arrays["sweep"])
    kind: Any = {"svi": svi.State, CTM: vi.topics.CTMState}.get(method, memoized.State)
    return sweep, kind(*(jax.numpy.asarray(leaf) for leaf in leaves))
