"""Topics on all devices of this process, and on one of them; prints how far apart they are."""

import json
import sys

import jax
import numpy as np
from scipy.sparse import csr_array

import vi_jax as vi


def main(method):
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(4), np.full(5, 0.2))
    shares = rng.dirichlet(np.full(4, 0.2), 120)
    dense = np.stack([rng.multinomial(40, row @ topics) for row in shares])
    counts = vi.topics.from_scipy(csr_array(dense))
    meshes = (None, vi.shard.make_mesh(data=-1, model=2))
    fits = [
        vi.topics.fit_lda(
            jax.random.key(0),
            counts,
            num_topics=4,
            method=method,
            num_starts=1,
            num_sweeps=6,
            batch_size=40,
            mesh=mesh,
        )
        for mesh in meshes
    ]
    (alone, many) = fits
    found = {
        "devices": len(many.topics.sharding.device_set),
        "topics": float(np.max(np.abs(many.topics - alone.topics) / alone.topics)),
        "history": float(np.max(np.abs(many.history - alone.history))),
        "alpha": float(np.max(np.abs(many.alpha - alone.alpha) / alone.alpha)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
