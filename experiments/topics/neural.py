"""The training of a neural topic model: corpus, steps, and the files that are left."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, cli, figures, terminal
from experiments.build import Units
from experiments.choices import NAME
from experiments.evals import Measures, Subject
from experiments.figures import topics as topic_figures
from experiments.rooms import DOCUMENTS, ROOMS
from experiments.run import devices, heartbeat, session, single
from experiments.run.folder import check_data
from experiments.run.metrics import METRICS, read_rows
from experiments.run.session import Built
from experiments.run.stopping import Stop
from experiments.run.tracker import Trackers
from experiments.topics import effects, neural_evals, outputs
from experiments.topics.covariates import Encoded, encode
from experiments.topics.load import Loaded, load, report
from experiments.topics.neural_config import as_training
from experiments.topics.neural_data import Held, held_out, make_dataset
from experiments.topics.neural_fit import NeuralFit, make_fit
from vi_jax import files


def run(config: Any, workdir: Path, *, resumed: bool, stop: Stop) -> None:
    """Trains, prints and saves.

    Raises:
      UserError: the corpus cannot be read, or does not go with the config.
    """
    loaded = load(config)
    encoded = encode(loaded)
    held = held_out(loaded, encoded)
    built = build_all(config, loaded, encoded, held)
    check_data(workdir, built.dataset)
    for line in report(loaded, config.model.num_latents):
        print(line)
    for line in encoded.lines() if encoded is not None else []:
        print(line)
    layout = devices.make_layout(built.config)
    state, recorder = single.take_steps(
        built, workdir, layout, resumed=resumed, stop=stop, trackers=Trackers()
    )
    params = devices.whole_params(state, layout)
    finish(config, workdir, built, held, loaded, params, recorder.final_measures(0, state))
    if encoded is not None:
        save_effects(config, workdir, encoded, loaded, params)


def save_effects(config: Any, workdir: Path, encoded: Encoded, loaded: Loaded, params: Any) -> None:
    """What each covariate does to the words, in files, in a figure and printed."""
    deviations = params["decoder"]["deviations"]
    found = effects.make_effects(deviations, encoded, loaded.corpus.vocab, loaded.train.totals)
    effects.save(workdir, found)
    path = workdir / "figures" / effects.FIGURE
    effects.draw(path, found, title=f"{config.name}: effects of covariates")
    print(effects.text(found), end="")


def build_all(config: Any, loaded: Loaded, encoded: Encoded | None, held: Held) -> Built:
    """What a config and its corpus stand for.

    Raises:
      UserError: the model refuses its settings.
    """
    training = as_training(config)
    with training.unlocked():
        training.eval.split = held.name
    known = {
        **build.sizes(training),
        "num_words": loaded.train.num_words,
        "background": np.asarray(loaded.train.totals, np.float32),
    }
    if encoded is not None:
        known["num_covariates"] = encoded.num_columns
    model = ROOMS.build(DOCUMENTS, config.model, where="config.model", facts=known)
    dataset = make_dataset(loaded, config.data.name, encoded)
    units = Units("table", 0)
    subject = Subject(model, training, units)
    meter = neural_evals.make_neural_meter(subject, held)
    for name, reason in meter.skipped.items():
        terminal.say(f"note: no evaluation of {name}: {reason}.")
    x = jax.tree.map(jnp.asarray, held.x)
    return Built(training, session.keys(training), dataset, units, model, x, None, meter)


def finish(
    config: Any,
    workdir: Path,
    built: Built,
    held: Held,
    loaded: Loaded,
    params: Any,
    measures: Measures,
) -> None:
    """Measures, saves, draws and prints what a training ends with."""
    key_shares, key_refine, key_evidence = jax.random.split(built.keys.evaluate, 3)
    with heartbeat.phase("measuring the topics"):
        rows = built.dataset.train.x
        fit = make_fit(key_shares, built.model, params, loaded.train, rows, config)
        summary = summarise(fit, loaded, held, measures)
    with heartbeat.compiling("fitting the shares of single documents"):
        guides = neural_evals.refined_guides(config, built.model, fit.num_words)
        gained = neural_evals.refine(key_refine, built.model, params, held, guides, config)
    if gained is not None:
        summary |= of_refined(gained)
    evidence = save_evidence(key_evidence, workdir, config, built, held, params)
    summary["seconds"] = time.perf_counter() - cli.STARTED
    for line in lines(config, fit, summary):
        print(line)
    arrays = {"topics": fit.topics_mean, "mean_share": fit.alpha}
    if "deviations" in params["decoder"]:
        arrays["deviations"] = np.asarray(params["decoder"]["deviations"])
    outputs.save(workdir, fit, loaded, summary, arrays)
    if evidence is not None:
        print(evidence.found.verdict)
    with heartbeat.phase("drawing"):
        paths = draw(config, workdir, fit, loaded, evidence)
    print(f"  {len(paths)} figures; run folder {workdir}")


def summarise(fit: NeuralFit, loaded: Loaded, held: Held, measures: Measures) -> dict[str, Any]:
    """Every number of a trained model."""
    summary = {**outputs.of_topics(fit, loaded), "split": held.name, **measures.summary}
    nats = summary["elbo"]["mean"] * len(held.lengths)
    summary["elbo_per_token"] = float(nats / held.lengths.sum())
    if held.has_halves:
        whole = neural_evals.completed(measures.arrays, "nll")
        at_mean = neural_evals.completed(measures.arrays, "nll_plug_in")
        summary["completion"] = outputs.plain(whole)
        summary["completion_plug_in"] = outputs.plain(at_mean)
    return summary


def of_refined(gained: neural_evals.Refined) -> dict[str, Any]:
    """The numbers of guides fitted to single documents."""
    found: dict[str, Any] = {"amortisation_gap": gained.gap}
    if gained.encoder is not None and gained.refined is not None:
        found["completion_of_some"] = {
            "encoder": outputs.plain(gained.encoder),
            "refined": outputs.plain(gained.refined),
        }
    return found


def lines(config: Any, fit: NeuralFit, summary: dict[str, Any]) -> list[str]:
    """What is printed at the end."""
    elbo = summary["elbo"]
    kl = summary["kl"]
    where = "held-out" if summary["split"] == "test" else "training"
    found = [
        f"{config.model[NAME]}: {fit.num_topics} topics of {fit.num_words:,} words, "
        f"{config.train.num_steps:,} steps, {summary['seconds']:.1f} s",
        f"ELBO of {summary['num_examples']:,} {where} documents {elbo['mean']:,.2f} ± "
        f"{elbo['stderr']:.2f} nats, {summary['elbo_per_token']:.4f} a token; KL {kl['mean']:.2f} "
        f"± {kl['stderr']:.2f}, {summary['active_units']} of {fit.num_topics} topics move",
        f"topics used {summary['topics_used']} of {fit.num_topics}, twins {len(summary['twins'])}",
        *outputs.lines(summary),
    ]
    if "amortisation_gap" in summary:
        gap = summary["amortisation_gap"]
        found.append(
            f"amortisation gap {gap['mean']:.3f} ± {gap['stderr']:.3f} nats a document (shares "
            "fitted to it alone, less the encoder's)"
        )
    for name, done in summary.get("completion_of_some", {}).items():
        found.append(f"completion, shares {name}: {outputs.completion_line(done)}")
    return found


def save_evidence(
    key: jax.Array, workdir: Path, config: Any, built: Built, held: Held, params: Any
) -> outputs.DocEvidence | None:
    """log p(words) and k-hat of some of the evaluated documents; None where none are asked for."""
    size = min(config.eval.evidence_docs, len(held.lengths))
    if not size:
        return None
    key_docs, key_samples = jax.random.split(key)
    order = np.asarray(jax.random.permutation(key_docs, len(held.lengths)))
    docs = np.sort(order[:size])
    x = jax.tree.map(lambda leaf: leaf[docs], neural_evals.whole_of(held.x))
    with heartbeat.compiling("measuring log p(words) of documents"):
        found = neural_evals.document_evidence(key_samples, built.model, params, x, config)
    return outputs.write_evidence(workdir, outputs.DocEvidence(docs, held.lengths[docs], found))


def draw(config: Any, workdir: Path, fit: NeuralFit, loaded: Loaded, evidence: Any) -> list[Path]:
    """All figures."""
    folder = workdir / "figures"
    files.make_folder(folder)
    paths = topic_figures.draw_all(folder, config.name, fit, loaded)
    rows = read_rows(workdir / METRICS)
    if rows:
        title = f"{config.name}: learning curves"
        paths.append(figures.learning_curves(folder / "learning_curves.png", rows, title=title))
    if evidence is not None:
        title = f"{config.name}: whose shares can be read"
        path = folder / "k_hat.png"
        paths.append(topic_figures.k_hats(path, evidence.found, evidence.lengths, title=title))
    return paths
