"""Covariates of documents: how they are read and encoded, what is refused, and what comes out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs.topics import neural as module
from experiments import corpora
from experiments.cli import UserError
from experiments.corpora import CorpusError, Part, Sparse
from experiments.topics import covariates, effects, neural_config, neural_data

pytest_plugins = ["command_helpers"]
NONE = Sparse(np.zeros(1, int), np.zeros(0, int), np.zeros(0, int))


def encoded(train, test=None):
    """Covariates of parts given as {name: values}."""
    parts = {"train": Part(NONE, beside=train)}
    if test is not None:
        parts["test"] = Part(NONE, beside=test)
    return covariates.encode(SimpleNamespace(corpus=SimpleNamespace(parts=parts)))


def data(name, asked, **fields):
    plain = dict(held_out=0.0, min_df=1, max_df=1.0, stop_words="")
    config = module.get_config("scholar")
    with config.unlocked():
        config.data.update({**plain, "name": name, "covariates": asked, **fields})
    return config.data


def beside(name, asked, **fields):
    return corpora.load(data(name, asked, **fields)).parts["train"].beside


# Reading


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("text,party,year\nfine words here,left,1990\nother words,right,2001.5\n")
    return path


def test_columns_of_a_csv_are_read_with_its_texts(table):
    found = beside(f"csv:{table}:text", "party, year")
    np.testing.assert_array_equal(found["party"], ["left", "right"])
    np.testing.assert_array_equal(found["year"], [1990.0, 2001.5])


def test_fields_of_json_lines_are_read_and_what_is_missing_stays_so(tmp_path):
    path = tmp_path / "some.jsonl"
    rows = [
        {"text": "some words", "age": 3},
        {"text": "other words", "age": None},
        {"text": "more"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    np.testing.assert_array_equal(beside(f"jsonl:{path}:text", "age")["age"], [3.0, np.nan, np.nan])
    path.write_text('{"text": "some words", "age": [3]}')
    with pytest.raises(CorpusError, match=r"line 1 has a list in 'age'"):
        beside(f"jsonl:{path}:text", "age")


def test_arrays_of_an_npz_follow_their_splits(tmp_path):
    path = tmp_path / "some.npz"
    counts = dict(data=np.ones(4), indices=np.arange(4) % 2, indptr=np.arange(5))
    arrays = {
        f"{part}_{name}": value for part in ("train", "test") for name, value in counts.items()
    }
    labels = np.array([1, 2, 1, 2])
    np.savez(path, **arrays, train_labels=labels, test_labels=labels[::-1], train_odd=labels[:2])
    parts = corpora.load(data(f"npz:{path}", "labels")).parts
    np.testing.assert_array_equal(parts["train"].beside["labels"], labels)
    np.testing.assert_array_equal(parts["test"].beside["labels"], labels[::-1])
    with pytest.raises(CorpusError, match=r"no array train_kind; it has"):
        corpora.load(data(f"npz:{path}", "kind"))
    with pytest.raises(CorpusError, match=r"train_odd is of type .* each of 4 documents"):
        corpora.load(data(f"npz:{path}", "odd"))


def test_the_first_folder_is_a_covariate_of_texts(tmp_path):
    for place in ("a/x.txt", "b/c/y.txt", "z.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("some words")
    found = beside(f"texts:{tmp_path}", "folder")
    np.testing.assert_array_equal(found["folder"], ["a", "b", ""])


def test_covariates_go_with_the_documents_that_are_held_out(table):
    rows = "".join(f"word{number % 3} common,{number % 3},{number}\n" for number in range(40))
    table.write_text("text,kind,number\n" + rows)
    settings = dict(held_out=0.25, split_seed=3, token_pattern=r"\w+")
    corpus = corpora.load(data(f"csv:{table}:text", "kind,number", **settings))
    for part in corpus.parts.values():
        for row, order in enumerate(part.order):
            (word, _) = (corpus.vocab[each] for each in order)
            assert word == f"word{part.beside['kind'][row]:.0f}"
    numbers = [part.beside["number"] for part in corpus.parts.values()]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(40))


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        (
            "csv:{table}:text",
            "colour",
            r"names 'colour', which .* has not; it has text, party, year",
        ),
        ("docstrings", "author", r"names 'author', which the docstrings has not; it has library"),
        ("ldac:{table}", "party", r"ldac: has words alone"),
        ("texts:{folder}", "party", r"names 'party', which a folder of texts has not"),
    ],
)
def test_what_a_corpus_lacks_is_refused(table, name, asked, message):
    with pytest.raises(CorpusError, match=message):
        beside(name.format(table=table, folder=table.parent), asked)


# Encoding


def test_labels_are_columns_less_their_means_and_numbers_are_standardised():
    years = np.arange(30.0)
    party = np.array(["left"] * 20 + ["right"] * 10)
    found = encoded({"party": party, "year": years}, {"party": party[-1:], "year": years[:1]})
    assert found.names == ["party = left", "party = right", "year, one standard deviation more"]
    train = found.columns["train"]
    assert train.shape == (30, found.num_columns)
    np.testing.assert_allclose(train.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(train[:, 2].std(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(train[0, :2], [1 / 3, -1 / 3], rtol=1e-6)
    expected = [-2 / 3, 2 / 3, -years.mean() / years.std()]
    np.testing.assert_allclose(found.columns["test"][0], expected, rtol=1e-6)
    assert "a number, less its mean 14.5" in found.lines()[1]


def test_few_numbers_are_labels():
    assert encoded({"class": np.array([1.0, 2.0, 1.0, 2.0])}).names == ["class = 1", "class = 2"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["a", "", "b"], None, r"missing for 1 of 3 training documents \(the first is number 1"),
        ([1.0, 2.0, np.nan], None, "missing for 1 of 3 training"),
        (["a", "a", "b", "b"], ["a", ""], "missing for 1 of 2 held-out documents"),
        (["a", "a", "b", "b"], ["c", "c"], "is 'c' for 2 held-out documents and for no training"),
        (["a", "a", "a"], ["a"], "is a for every training document: it says nothing"),
        (["a", "b", "c"], None, "has 3 labels for 3 training documents"),
        (np.arange(30.0), ["x"], "a number in the training documents, and in held-out ones a text"),
    ],
)
def test_values_that_cannot_be_used_are_refused(train, test, message):
    given = None if test is None else {"kind": np.array(test)}
    with pytest.raises(UserError, match=message):
        encoded({"kind": np.array(train)}, given)


def test_covariates_and_models_have_to_go_together():
    config = module.get_config("scholar")
    neural_config.validate(config)
    config.data.covariates = ""
    with pytest.raises(UserError, match="scholar, and no covariates are named"):
        neural_config.validate(config)
    other = module.get_config("prodlda")
    with other.unlocked():
        other.data.covariates = "library"
    with pytest.raises(UserError, match="prodlda takes no covariates"):
        neural_config.validate(other)


def test_without_covariates_nothing_is_encoded():
    assert encoded(None) is None
    assert neural_data.columns_of(None, "train") is None


# Effects


def test_effects_name_the_words_that_a_label_raises_and_lowers():
    names = encoded({"kind": np.array(["a", "a", "b", "b"])})
    deviations = np.array([[0.5, -1.0, 3.0, 0.1], [-0.5, 1.0, -3.0, 0.0]])
    totals = [50, 50, 2, 50]  # the third word is too rare to be shown
    found = effects.make_effects(deviations, names, ("up", "down", "rare", "even"), totals)
    assert found.raised(0, 5) == [("up", 0.5), ("even", 0.1)]
    assert found.raised(0, 5, sign=-1.0) == [("down", -1.0)]
    assert "kind = b\n  raised   down (+1.00)\n  lowered  up (-0.50)" in effects.text(found)


@pytest.mark.integration
def test_the_command_finds_what_labels_do_to_words(commands, tmp_path):
    rng = np.random.default_rng(0)
    words = np.array([f"{letter * 3}" for letter in "abcdefghij"])
    rows = ["text,party"]
    for number in range(120):
        party = number % 2
        topic = rng.integers(2)
        probs = np.full(10, 0.02)
        probs[3 * topic : 3 * topic + 3] = 0.25
        probs[8 + party] = 0.15  # the one word that a party raises
        text = " ".join(rng.choice(words, 30, p=probs / probs.sum()))
        rows.append(f"{text},{('left', 'right')[party]}")
    path = tmp_path / "some.csv"
    path.write_text("\n".join(rows) + "\n")
    place = tmp_path / "run"
    fields = (f"data.name=csv:{path}:text", "data.covariates=party", "data.min_df=1")
    small = ("data.max_df=1.0", "model.num_latents=3", "model.hidden=16", "train.num_steps=200")
    rest = ("train.log_every=100", "train.eval_every=200", "train.checkpoint_every=200")
    more = ("eval.evidence_docs=4", "eval.refined_docs=2", "eval.num_importance_samples=8")
    fields = (*fields, *small, *rest, *more, "objective.beta.num_steps=100")
    done = commands.ok(
        "documents",
        "--config=configs/topics/neural.py:scholar",
        *(f"--config.{field}" for field in fields),
        f"--workdir={place}",
    )
    assert "covariate party: 2 labels" in done.stdout
    found = json.loads((place / "covariates.json").read_text())
    assert [entry["effect"] for entry in found] == ["party = left", "party = right"]
    assert [entry["raised"][0]["word"] for entry in found] == ["iii", "jjj"]
    assert "party = left\n  raised   iii" in (place / "covariates.txt").read_text()
    assert (place / "figures" / "covariates.png").exists()
    with np.load(place / "topics.npz") as arrays:
        assert arrays["deviations"].shape == (2, 10)
