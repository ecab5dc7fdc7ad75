"""Topics of other libraries, for `benchmarks.topics`: run by a Python that has them.

    /opt/peers/bin/python benchmarks/topics_peers.py NAME CORPUS.npz OUT.npz '{"seed": 0}'

CORPUS.npz has train_data, train_indices, train_indptr and num_words; OUT.npz gets topics [K, V],
alpha [K], seconds and cpu seconds of the fit. NAME may be estep_sklearn or estep_gensim, whose
OUT.npz has the seconds of an E-step and its work.
"""

import json
import sys
import time

import numpy as np

NUM_TOPICS = 50
ESTEP_ITERATIONS = 20
ESTEP_DOCS = 2000


def matrix(corpus, dtype=np.int64):
    from scipy.sparse import csr_matrix

    parts = tuple(corpus[f"train_{part}"] for part in ("data", "indices", "indptr"))
    data = parts[0].astype(dtype)
    shape = (len(parts[2]) - 1, int(corpus["num_words"]))
    return csr_matrix((data, *parts[1:]), shape=shape)


def pairs(rows):
    return [
        [
            (int(word), float(count))
            for word, count in zip(
                rows.indices[rows.indptr[doc] : rows.indptr[doc + 1]],
                rows.data[rows.indptr[doc] : rows.indptr[doc + 1]],
                strict=True,
            )
        ]
        for doc in range(rows.shape[0])
    ]


def texts(rows):
    return [
        np.repeat(
            rows.indices[rows.indptr[doc] : rows.indptr[doc + 1]],
            rows.data[rows.indptr[doc] : rows.indptr[doc + 1]],
        )
        for doc in range(rows.shape[0])
    ]


def sklearn(rows, seed, **settings):
    from sklearn.decomposition import LatentDirichletAllocation

    model = LatentDirichletAllocation(NUM_TOPICS, random_state=seed, **settings)
    yield
    model.fit(rows)
    topics = model.components_ / model.components_.sum(1, keepdims=True)
    yield topics, np.full(NUM_TOPICS, model.doc_topic_prior_)


def gensim(rows, seed, **settings):
    from gensim.models import LdaModel

    documents = pairs(rows)
    names = {word: str(word) for word in range(rows.shape[1])}
    yield
    model = LdaModel(documents, num_topics=NUM_TOPICS, id2word=names, random_state=seed, **settings)
    yield model.get_topics(), np.asarray(model.alpha)


def tomotopy(rows, seed, sweeps=200, **settings):
    import tomotopy

    model = tomotopy.LDAModel(k=NUM_TOPICS, seed=seed, **settings)
    for text in texts(rows):
        if len(text):
            model.add_doc([str(word) for word in text])
    yield
    model.train(sweeps, workers=1)
    topics = np.full((NUM_TOPICS, rows.shape[1]), 1e-9)
    words = [int(word) for word in model.used_vocabs]
    for topic in range(NUM_TOPICS):
        topics[topic, words] = model.get_topic_word_dist(topic)
    yield topics / topics.sum(1, keepdims=True), np.asarray(model.alpha)


def topica(rows, seed, sweeps=1000, **settings):
    import topica as library

    model = library.LDA(NUM_TOPICS, seed=seed, **settings)
    documents = [[str(word) for word in text] for text in texts(rows)]
    yield
    model.fit(documents, iters=sweeps, num_threads=1)
    topics = np.full((NUM_TOPICS, rows.shape[1]), 1e-9)
    topics[:, [int(word) for word in model.vocabulary]] = model.topic_word
    yield topics / topics.sum(1, keepdims=True), np.asarray(model.alpha)


def estep_sklearn(rows):
    from sklearn.decomposition import LatentDirichletAllocation

    rows = rows[:ESTEP_DOCS].astype(np.float32)
    model = LatentDirichletAllocation(
        NUM_TOPICS, max_doc_update_iter=ESTEP_ITERATIONS, mean_change_tol=0.0, random_state=0
    )
    model._init_latent_vars(rows.shape[1], dtype=np.float32)
    return rows.nnz, lambda: model._e_step(rows, cal_sstats=False, random_init=False)


def estep_gensim(rows):
    from gensim.models import LdaModel

    rows = rows[:ESTEP_DOCS].astype(np.float32)
    documents = pairs(rows)
    model = LdaModel(
        num_topics=NUM_TOPICS,
        id2word={word: str(word) for word in range(rows.shape[1])},
        iterations=ESTEP_ITERATIONS,
        gamma_threshold=0.0,
        dtype=np.float32,
    )
    return rows.nnz, lambda: model.inference(documents)


def best_time(function, repeats=3):
    """Least wall and CPU seconds of some calls."""
    wall = []
    cpu = []
    for _ in range(repeats):
        began = time.perf_counter()
        began_cpu = time.process_time()
        function()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return min(wall), min(cpu)


def main(name, corpus, out, settings):
    corpus = np.load(corpus)
    if name.startswith("estep_"):
        cells, run = globals()[name](matrix(corpus))
        wall, cpu = best_time(run)
        work = cells * NUM_TOPICS * ESTEP_ITERATIONS
        np.savez(out, work=work, seconds=wall, cpu=cpu)
        return
    fit = globals()[name](matrix(corpus), **settings)
    next(fit)
    began = time.perf_counter()
    began_cpu = time.process_time()
    topics, alpha = next(fit)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - began_cpu
    np.savez(out, topics=topics, alpha=alpha, seconds=seconds, cpu=cpu)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
