"""Neural topic models of one document {"ids": words [L] int32, "counts": how often [L], 0 where
there are fewer}.

    rows = vi.topics.as_rows(counts)  # {"ids": [N, L], "counts": [N, L]}
    model = vi.models.documents.prodlda(num_words=V, num_latents=50, background=frequencies)
    topics = vi.models.documents.topics(model, params)

An encoder sees the sum of its words' embeddings; the corpus's frequencies are an offset that is
trained, which does what batch normalisation of the outputs is used for without a document's
posterior depending on its neighbours.
"""

from vi_jax.models.documents._bag import Bag, shares, topics
from vi_jax.models.documents.amortised_lda import amortisation_gap, amortised_lda
from vi_jax.models.documents.etm import etm
from vi_jax.models.documents.nvdm import nvdm
from vi_jax.models.documents.prodlda import prodlda
from vi_jax.models.documents.scholar import scholar

__all__ = [
    "Bag",
    "amortisation_gap",
    "amortised_lda",
    "etm",
    "nvdm",
    "prodlda",
    "scholar",
    "shares",
    "topics",
]
