"""The fit of a topic model: corpus, check, sweeps, and the files that are left."""

import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vi_jax as vi
from experiments import cli, corpora
from experiments.corpora import Corpus, Sparse
from experiments.figures import topics as figures
from experiments.run import heartbeat
from experiments.run.contents import DATA
from experiments.run.live import Count
from experiments.run.stopping import Stop
from experiments.topics import outputs
from vi_jax import files
from vi_jax.topics import memoized, svi
from vi_jax.topics.svi import Schedule

METRICS = "metrics.jsonl"
STATE = "state.npz"  # of a fit that has not ended, to go on from


class Loaded(NamedTuple):
    """A corpus as the library takes it."""

    corpus: Corpus
    train: vi.topics.Counts
    test: vi.topics.Counts | None
    halves: tuple[vi.topics.Counts, vi.topics.Counts] | None


def run(config: Any, workdir: Path, *, resumed: bool, stop: Stop) -> None:
    """Fits, prints and saves.

    Raises:
      UserError: the corpus cannot be read, or does not go with the config.
    """
    loaded = load(config)
    check_data(workdir, loaded)
    for line in report(config, loaded):
        print(line)
    with stop.deferred():  # which ends the command where a signal came, after the save
        fit = _fit(config, workdir, loaded, resumed=resumed, stop=stop)
    print(fit)
    with heartbeat.phase("measuring the topics"):
        summary = outputs.summarise(fit, loaded)
    for line in outputs.lines(summary):
        print(line)
    outputs.save(workdir, fit, loaded, summary)
    with heartbeat.phase("measuring the shares of documents"):
        evidence = outputs.save_evidence(workdir, config, fit, loaded)
    if evidence is not None:
        print(evidence.found.verdict)
    with heartbeat.phase("drawing"):
        rows = outputs.read_metrics(workdir / METRICS)
        files.make_folder(workdir / "figures")
        paths = figures.draw_all(workdir / "figures", config.name, fit, loaded, rows)
        if evidence is not None:
            path = workdir / "figures" / "k_hat.png"
            title = f"{config.name}: whose shares can be read"
            paths.append(figures.k_hats(path, evidence.found, evidence.lengths, title=title))
    (workdir / STATE).unlink(missing_ok=True)
    print(f"  {len(paths)} figures; run folder {workdir}")


def load(config: Any) -> Loaded:
    """The corpus of a config.

    Raises:
      UserError: it cannot be had, in a sentence.
    """
    try:
        with heartbeat.phase(f"reading {config.data.name}"):
            corpus = corpora.load(config.data)
            parts = corpus.parts
            size = len(corpus.vocab)
            train = _counts(parts["train"].counts, size)
            test = None
            halves = None
            if "test" in parts:
                test = _counts(parts["test"].counts, size)
                (first, second) = corpora.halves(parts["test"], config.data.split_seed)
                halves = (_counts(first, size), _counts(second, size))
    except (corpora.CorpusError, ValueError, TypeError) as error:
        raise cli.UserError(str(error)) from None
    return Loaded(corpus, train, test, halves)


def _counts(part: Sparse, num_words: int) -> vi.topics.Counts:
    return vi.topics.from_csr(part.indptr, part.indices, part.data, num_words=num_words)


def check_data(workdir: Path, loaded: Loaded) -> None:
    """Records the corpus, or refuses another one than the run in the folder began with.

    Raises:
      UserError: the counts or the vocabulary have changed.
    """
    hasher = hashlib.sha256("\n".join(loaded.corpus.vocab).encode())
    for part in loaded.corpus.parts.values():
        for array in part.counts:
            hasher.update(np.ascontiguousarray(array, np.int64).tobytes())
    found = {"source": loaded.corpus.source, "fingerprint": hasher.hexdigest()}
    path = workdir / DATA
    if files.kind(path):
        before = outputs.read_json(path)
        if before.get("fingerprint") != found["fingerprint"]:
            raise cli.UserError(
                f"the documents have changed since the run in {workdir} began; give back the old "
                "ones, or name another --workdir."
            )
    files.write_json(path, found)


def report(config: Any, loaded: Loaded) -> list[str]:
    """What was read, in lines, with what looks wrong."""
    corpus = loaded.corpus
    train = loaded.train
    lines = [
        f"documents: {corpus.source}",
        f"documents: {train.num_docs:,} to train on, {train.num_tokens:,} tokens of "
        f"{train.num_words:,} words",
    ]
    if loaded.test is not None:
        lines.append(
            f"documents: {loaded.test.num_docs:,} held out, {loaded.test.num_tokens:,} tokens"
        )
    lines += [f"documents: {note}" for note in corpus.notes]
    check = vi.topics.check(train, corpus.vocab, num_topics=config.model.num_topics)
    return lines + [f"check: {finding.sentence}" for finding in check.findings]


def _fit(config: Any, workdir: Path, loaded: Loaded, *, resumed: bool, stop: Stop) -> Any:
    """The fitted model; each sweep is a line of metrics.jsonl, and the state is saved now and
    then, and at a stop.

    Raises:
      UserError: the model and the corpus do not go together, in a sentence.
    """
    model = config.model
    (done, state) = _saved(workdir / STATE, model.method) if resumed else (0, None)
    rows = outputs.keep_metrics(workdir / METRICS, done)
    record = _Record(workdir, config.fit, stop, rows[-1]["seconds"] if rows else 0.0)
    with Count("sweeps", config.fit.num_sweeps - done, "sweeps", first=0.0) as count:

        def after_sweep(progress: vi.topics.Progress) -> bool:
            count.add(1)
            return record.after_sweep(progress)

        try:
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
        outputs.append_metrics(self._workdir / METRICS, progress, self._seconds)
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
    kind: Any = svi.State if method == "svi" else memoized.State
    return sweep, kind(*(jax.numpy.asarray(leaf) for leaf in leaves))
