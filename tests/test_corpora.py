"""Documents as they come: every form is read to the same counts, and what is wrong with a file is
one sentence.
"""

import gzip
import json

import numpy as np
import pytest
from scipy import io, sparse

import vi_jax as vi
from configs.topics.lda import get_config
from experiments import corpora
from experiments.cli import UserError
from experiments.corpora import CorpusError
from experiments.topics.config import METHODS, validate

COUNTS = np.array([[2, 0, 1, 0], [0, 3, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
VOCAB = ("apple", "bread", "cheese", "dates")


def data(name, **fields):
    config = get_config()
    plain = {"held_out": 0.0, "min_df": 1, "max_df": 1.0, "stop_words": ""}
    config.data.update({**plain, "name": name, **fields})
    return config.data


def dense(counts, num_words=4):
    found = np.zeros((counts.num_docs, num_words), int)
    rows = np.repeat(np.arange(counts.num_docs), np.diff(counts.indptr))
    np.add.at(found, (rows, np.asarray(counts.indices)), np.asarray(counts.data).astype(int))
    return found


def read(name, **fields):
    return corpora.load(data(name, **fields))


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n")
    return path


def as_ldac(folder):
    lines = [
        " ".join([str((row > 0).sum()), *(f"{w}:{n}" for w, n in enumerate(row) if n)])
        for row in COUNTS
    ]
    path = folder / "some.ldac"
    path.write_text("\n".join(lines) + "\n")
    return f"ldac:{path}"


def as_uci(folder):
    (docs, words) = COUNTS.nonzero()
    cells = [f"{d + 1} {w + 1} {COUNTS[d, w]}" for d, w in zip(docs, words, strict=True)]
    path = folder / "docword.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["4", "4", str(len(cells)), *cells]).encode()))
    return f"uci:{path}"


def as_mtx(folder):
    path = folder / "some.mtx"
    io.mmwrite(path, sparse.coo_array(COUNTS))
    return f"mtx:{path}"


def as_scipy(folder):
    path = folder / "scipy.npz"
    sparse.save_npz(path, sparse.csr_array(COUNTS))
    return f"npz:{path}"


@pytest.mark.parametrize("write", [as_ldac, as_uci, as_mtx, as_scipy])
def test_every_form_of_counts_is_read_to_the_same(write, tmp_path, vocab):
    name = write(tmp_path)
    found = read(name)
    np.testing.assert_array_equal(dense(found.parts["train"].counts), COUNTS)
    assert found.vocab == ("word0", "word1", "word2", "word3")
    if not name.startswith("npz"):
        assert read(f"{name},{vocab}").vocab == VOCAB
        short = tmp_path / "short.txt"
        short.write_text("a\nb\n")
        with pytest.raises(CorpusError, match="vocabulary"):
            read(f"{name},{short}")


def test_arrays_bring_their_splits_words_titles_and_halves(tmp_path):
    whole = sparse.csr_array(COUNTS)
    half = sparse.csr_array(COUNTS // 2)
    rest = sparse.csr_array(COUNTS - COUNTS // 2)
    arrays = {"vocab": np.array(VOCAB), "train_titles": np.array(["a", "b", "c", "d"])}
    for name, part in (("train", whole), ("test", whole), ("test_h1", half), ("test_h2", rest)):
        arrays |= {
            f"{name}_{field}": getattr(part, field) for field in ("data", "indices", "indptr")
        }
    np.savez(tmp_path / "some.npz", **arrays)
    found = read(f"npz:{tmp_path / 'some.npz'}")
    assert found.vocab == VOCAB
    assert found.parts["train"].titles == ("a", "b", "c", "d")
    halves = corpora.halves(found.parts["test"], 0)
    np.testing.assert_array_equal(dense(halves[0]), COUNTS // 2)


TEXTS = ("The cat, the mat.", "", "Cat & dog: dog!", "naïve café")


def as_folder(folder):
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return f"texts:{folder}"


def as_csv(folder):
    rows = ["id,body", *(f'{n},"{text}"' for n, text in enumerate(TEXTS))]
    (folder / "t.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    return f"csv:{folder / 't.csv'}:body"


def as_jsonl(folder):
    (folder / "t.jsonl").write_text("\n".join(json.dumps({"body": text}) for text in TEXTS))
    return f"jsonl:{folder / 't.jsonl'}:body"


@pytest.mark.parametrize("write", [as_folder, as_csv, as_jsonl])
def test_texts_are_split_counted_and_halved_in_their_order(write, tmp_path):
    found = read(write(tmp_path))
    assert found.vocab == ("café", "cat", "dog", "mat", "naïve", "the")
    part = found.parts["train"]
    assert dense(part.counts, 6).tolist() == [
        [0, 1, 0, 1, 0, 2],
        [0] * 6,
        [0, 1, 2, 0, 0, 0],
        [1, 0, 0, 0, 1, 0],
    ]
    (first, second) = part.halves
    assert dense(first, 6)[0].tolist() == [0, 1, 0, 0, 0, 1]  # "the cat"
    assert (dense(first, 6) + dense(second, 6) == dense(part.counts, 6)).all()
    assert part.order[2].tolist() == [1, 2, 2]


def test_words_are_kept_by_the_documents_that_they_are_in(tmp_path):
    name = as_jsonl(tmp_path)
    assert read(name, min_df=2).vocab == ("cat",)
    assert "cat" not in read(name, max_df=0.4).vocab
    stop = tmp_path / "stop.txt"
    stop.write_text("the mat")
    assert {"the", "mat"} & set(read(name, stop_words=str(stop)).vocab) == set()
    with pytest.raises(CorpusError, match=r"no word .* is left: 6 words, .* in 2 of 4 documents"):
        read(name, min_df=3)
    with pytest.raises(CorpusError, match="no pattern"):
        read(name, token_pattern="(")


def test_held_out_documents_and_dealt_halves_are_those_of_a_seed(tmp_path):
    rng = np.random.default_rng(0)
    many = rng.poisson(1.0, (50, 4))
    sparse.save_npz(tmp_path / "many.npz", sparse.csr_array(many))
    name = f"npz:{tmp_path / 'many.npz'}"
    found = read(name, held_out=0.2, split_seed=3)
    again = read(name, held_out=0.2, split_seed=3)
    train = dense(found.parts["train"].counts)
    test = dense(found.parts["test"].counts)
    assert len(train) == 40
    np.testing.assert_array_equal(test, dense(again.parts["test"].counts))
    whole = np.concatenate([train, test])
    assert sorted(map(tuple, whole)) == sorted(map(tuple, many))
    (first, second) = corpora.halves(found.parts["test"], 3)
    np.testing.assert_array_equal(dense(first) + dense(second), test)
    np.testing.assert_array_equal(dense(first).sum(1), test.sum(1) // 2)
    with pytest.raises(CorpusError, match="would hold out 0"):
        read(as_ldac(tmp_path), held_out=0.05)


WRONG = {
    "ldac": [
        ("2 0:1", "says 2 words and has 1"),
        ("1 0:1.5", "whole numbers"),
        ("1 -1:2", "from -1"),
        ("x", "whole numbers"),
    ],
    "uci": [
        ("2 3 1\n1 4 1", "words from 4 to 4, and its header says 3"),
        ("2 3 1\n0 1 1", "counted from 0"),
        ("2 3 5\n1 1 1", "says 5 cells"),
        ("2 3 1\n1 1", "three for each cell"),
        ("2 3 1\n1 1 x", "no whole number"),
    ],
    "mtx": [("hello", "no MatrixMarket")],
    "npz": [("hello", "cannot be read as arrays")],
    "jsonl": [("{", "line 1 is no JSON"), ('{"a": 1}', "no text in 'body'; it has a")],
    "csv": [("id,text\n1,a\n", "no column 'body'; it has id, text")],
}


@pytest.mark.parametrize(
    ("kind", "text", "said"), [(kind, *pair) for kind, pairs in WRONG.items() for pair in pairs]
)
def test_what_is_wrong_with_a_file_is_a_sentence(kind, text, said, tmp_path):
    path = tmp_path / "wrong"
    path.write_text(text)
    suffix = ":body" if kind in ("csv", "jsonl") else ""
    with pytest.raises(CorpusError, match=said):
        read(f"{kind}:{path}{suffix}")


def test_an_encoding_is_named_by_its_file_and_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorpusError, match=r"a\.txt is not UTF-8: byte 3 is 0xe9"):
        read(f"texts:{tmp_path}")


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "o.npz", indptr=np.array([0, {}], object))
    with pytest.raises(CorpusError, match="cannot be read as arrays"):
        read(f"npz:{tmp_path / 'o.npz'}")


def test_a_matrix_of_words_by_documents_is_told_from_its_vocabulary(tmp_path, vocab):
    io.mmwrite(tmp_path / "t.mtx", sparse.coo_array(np.ones((4, 9), int)))
    with pytest.raises(CorpusError, match="transpose it"):
        read(f"mtx:{tmp_path / 't.mtx'},{vocab}")


@pytest.mark.parametrize(
    "name", ["texts:nowhere", "texts:", "ldac:", "csv:some", "jsonl:some", "npz:nowhere.npz"]
)
def test_what_is_not_there_is_a_sentence(name):
    with pytest.raises(CorpusError, match=r"does not exist|names no"):
        read(name)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model.num_topics", 0, "at least 1"),
        ("model.num_topics", True, "of type int"),
        ("model.alpha", 0.0, "learn, or a number above 0"),
        ("model.alpha", "some", "learn, or a number above 0"),
        ("model.method", "gibbs", "memoized"),
        ("data.name", "reuters", "texts:DIR"),
        ("data.max_df", 1.5, "at most 1"),
        ("fit.tolerance", "small", "of type float or int"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(field, value, said):
    config = get_config()
    (group, name) = field.split(".")
    with config.ignore_type():
        config[group][name] = value
    with pytest.raises(UserError, match=said):
        validate(config)


def test_the_methods_of_a_config_are_those_of_the_library():
    assert set(METHODS) == set(vi.topics.METHODS)


def test_a_corpus_becomes_the_counts_of_the_library(tmp_path):
    part = read(as_ldac(tmp_path)).parts["train"].counts
    counts = vi.topics.from_csr(part.indptr, part.indices, part.data, num_words=4)
    assert counts.num_docs == 4
    assert counts.num_tokens == COUNTS.sum()
