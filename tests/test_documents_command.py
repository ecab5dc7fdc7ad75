"""experiments.documents as real processes: what it leaves, and that a stopped fit goes on."""

import json
import signal
import time

import numpy as np
import pytest

pytest_plugins = ["command_helpers"]
NUM_TOPICS = 3
WORDS = [f"{letter}{letter}{letter}" for letter in "abcdefghijklmno"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents of three topics of five words each, mostly of one."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    for number in range(90):
        shares = np.full(NUM_TOPICS, 0.05)
        shares[number % NUM_TOPICS] = 0.9
        words = rng.choice(15, 40, p=np.repeat(shares / 5, 5))
        (folder / f"{number:03}.txt").write_text(" ".join(WORDS[word] for word in words))
    return folder


def flags(texts, place, *more):
    return of_config("lda.py", texts, place, f"model.num_topics={NUM_TOPICS}", *more)


def of_config(name, texts, place, *more):
    fields = (f"data.name=texts:{texts}", "data.min_df=1", "data.max_df=1.0", *more)
    return [
        f"--config=configs/topics/{name}",
        *(f"--config.{field}" for field in fields),
        f"--workdir={place}",
    ]


def wait_for_rows(process, path, num):
    until = time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") >= num):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)


def test_a_fit_leaves_topics_shares_words_numbers_and_figures(commands, texts, tmp_path):
    place = tmp_path / "run"
    done = commands.ok("documents", *flags(texts, place, "model.num_starts=3"))
    assert "completion perplexity of held-out documents" in done.stdout
    assert "81 to train on" in done.stdout
    summary = json.loads((place / "summary.json").read_text())
    assert summary["completion"]["num_docs"] == 9
    assert 5 < summary["completion"]["ppl_tok"] < 10  # 15 words; 5 of them at shares of 0.9
    assert summary["topics_used"] == NUM_TOPICS
    with np.load(place / "topics.npz") as arrays:
        assert arrays["lambda"].shape == (NUM_TOPICS, 15)
        assert arrays["vocab"].tolist() == WORDS
        beta = arrays["lambda"] / arrays["lambda"].sum(1, keepdims=True)
    assert sorted(beta.argsort(1)[:, -5:].min(1).tolist()) == [0, 5, 10]
    shares = np.load(place / "doc_topics.npy")
    assert shares.shape == (81, NUM_TOPICS)
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-5)
    assert len(json.loads((place / "top_words.json").read_text())) == NUM_TOPICS
    assert (place / "mallet_keys.txt").read_text().count("\n") == NUM_TOPICS
    rows = [line.split("\t") for line in (place / "mallet_doc_topics.txt").read_text().splitlines()]
    np.testing.assert_allclose(np.array(rows)[:, 2:].astype(float), shares, atol=1e-5)
    table = (place / "doc_topics.csv").read_text().splitlines()
    assert table[0] == "document,topic_0,topic_1,topic_2"
    assert len(table) == 82
    vis = json.loads((place / "ldavis.json").read_text())
    np.testing.assert_allclose(np.sum(vis["topic_term_dists"], 1), 1.0, atol=1e-4)
    assert sum(vis["doc_lengths"]) == sum(vis["term_frequency"]) == summary["num_tokens"]
    pictures = {path.stem for path in (place / "figures").glob("*.png")}
    assert pictures == {
        *("topics", "topic_map", "correlations", "shares", "learning_curves", "restarts"),
        "k_hat",
    }
    with np.load(place / "doc_evidence.npz") as arrays:
        assert arrays["k_hat"].shape == arrays["doc"].shape == (81,)
        assert np.all(arrays["elbo"] <= arrays["iwae"] + 0.1)
    assert "of 81 documents can be read" in done.stdout
    again = commands.ok("documents", *flags(texts, place, "model.num_starts=3"))
    assert json.loads((place / "summary.json").read_text())["completion"] == summary["completion"]
    assert "LDA by partly" in again.stdout


@pytest.mark.parametrize("method", [pytest.param("partly", marks=pytest.mark.slow), "svi"])
def test_a_fit_that_was_stopped_ends_where_an_unbroken_one_does(commands, texts, tmp_path, method):
    of_method = (f"model.method={method}", "fit.batch_size=20")
    more = (*of_method, "fit.num_sweeps=60", "fit.tolerance=0", "fit.checkpoint_minutes=0.00001")
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    commands.ok("documents", *flags(texts, whole, *more))
    process = commands.start("documents", *flags(texts, broken, *more))
    metrics = broken / "metrics.jsonl"
    wait_for_rows(process, metrics, 5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    commands.ok("documents", *flags(texts, broken, *more))
    with np.load(whole / "topics.npz") as a, np.load(broken / "topics.npz") as b:
        np.testing.assert_array_equal(a["lambda"], b["lambda"])
        np.testing.assert_array_equal(a["alpha"], b["alpha"])
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["sweep"] for row in rows] == list(range(1, 61))


def test_other_documents_in_the_place_of_the_old_are_refused(commands, texts, tmp_path):
    place = tmp_path / "run"
    own = tmp_path / "own"
    own.mkdir()
    for path in texts.iterdir():
        (own / path.name).write_text(path.read_text())
    commands.ok("documents", *flags(own, place, "fit.num_sweeps=2"))
    (own / "000.txt").write_text("aaa bbb")
    done = commands("documents", *flags(own, place, "fit.num_sweeps=2"))
    assert done.returncode == 2
    assert "the documents have changed" in done.stderr


def test_more_topics_than_documents_are_a_sentence(commands, texts, tmp_path):
    done = commands("documents", *flags(texts, tmp_path / "run", "model.num_topics=500"))
    assert done.returncode == 2
    assert "500 topics of 81 documents" in done.stderr
    assert "Traceback" not in done.stderr


SMALL = (
    *("model.num_latents=3", "model.hidden=16", "model.alpha=0.3"),
    *("train.batch_size=27", "train.num_steps=300", "train.log_every=10", "train.eval_every=300"),
    *("train.checkpoint_every=50", "eval.num_importance_samples=50", "eval.refined_docs=6"),
)


@pytest.mark.slow  # a minute of compiling; its loop and its resuming are those of every training
def test_a_neural_model_leaves_what_a_topic_model_leaves_and_goes_on(commands, texts, tmp_path):
    """One run unbroken, one killed and started again: the same topics to the last bit."""
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    done = commands.ok("documents", *of_config("neural.py", texts, whole, *SMALL))
    assert "completion perplexity of held-out documents" in done.stdout
    assert "amortisation gap" in done.stdout
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["completion"]["num_docs"] == 9
    assert 5 < summary["completion"]["ppl_tok"] < 13  # 15 words; 5 of them at shares of 0.9
    assert set(summary["completion_of_some"]) == {"encoder", "refined"}
    with np.load(whole / "topics.npz") as arrays:
        np.testing.assert_allclose(arrays["topics"].sum(1), 1.0, rtol=1e-4)
        planted = arrays["topics"].argsort(1)[:, -3:] // 5
    assert sorted(planted[:, 0].tolist()) == [0, 1, 2]
    assert np.all(planted == planted[:, :1])
    shares = np.load(whole / "doc_topics.npy")
    assert shares.shape == (81, NUM_TOPICS)
    assert len(json.loads((whole / "ldavis.json").read_text())["doc_lengths"]) == 81
    pictures = {path.stem for path in (whole / "figures").glob("*.png")}
    assert pictures == {
        *("topics", "topic_map", "correlations", "shares", "learning_curves", "k_hat")
    }
    process = commands.start("documents", *of_config("neural.py", texts, broken, *SMALL))
    wait_for_rows(process, broken / "metrics.jsonl", 12)
    process.send_signal(signal.SIGKILL)
    process.wait()
    commands.ok("documents", *of_config("neural.py", texts, broken, *SMALL))
    with np.load(whole / "topics.npz") as a, np.load(broken / "topics.npz") as b:
        np.testing.assert_array_equal(a["topics"], b["topics"])
    np.testing.assert_array_equal(shares, np.load(broken / "doc_topics.npy"))
    rows = [(place / "metrics.jsonl").read_text() for place in (whole, broken)]
    assert rows[0] == rows[1]
