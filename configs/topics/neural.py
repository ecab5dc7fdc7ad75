"""Topics of a corpus by a network: ProdLDA, embedded topics, and LDA with an encoder. No download.

    python -m experiments.documents --config=configs/topics/neural.py
    python -m experiments.documents --config=configs/topics/neural.py:etm \\
        --config.data.name=texts:DIR --config.model.num_latents=50

The default corpus is the documentation of SciPy and scikit-learn, from their installed sources.
Variants: prodlda (default; Srivastava & Sutton 2017), etm (Dieng et al. 2020), gsm (Miao et al.
2017), amortised_lda (LDA's own bound, an encoder and two exact iterations in the place of the
sweeps), scholar (ProdLDA with covariates of documents, config.data.covariates, whose effects on
words are found beside the topics; Card et al. 2018). One file, since they have all but the model's
name and numbers in common. The first command takes some 90 CPU seconds, and comes to a completion
perplexity of 741 +- 36 by tokens where LDA has 724 +- 30.
"""

from ml_collections import ConfigDict

from configs.base import check_variant
from configs.topics import base

MODELS = {
    "prodlda": dict(name="prodlda", num_latents=20, hidden=100, alpha=0.1),
    "etm": dict(name="etm", num_latents=20, hidden=100, embedding_size=100),
    "gsm": dict(name="nvdm", num_latents=20, hidden=100, shares=True),
    "amortised_lda": dict(name="amortised_lda", num_latents=20, hidden=100, alpha=0.1),
    "scholar": dict(name="scholar", num_latents=20, hidden=100, alpha=0.1),
}
VARIANTS = ("prodlda", "etm", "gsm", "amortised_lda", "scholar")


def get_config(variant: str = "prodlda") -> ConfigDict:
    """The config of one variant."""
    check_variant(variant, VARIANTS, "configs/topics/neural.py")
    data = base.documents()
    if variant == "scholar":
        # columns of a csv, fields of JSON lines or arrays of an npz, with commas between them; of
        # docstrings library, of texts:DIR folder
        data["covariates"] = "library"
    return ConfigDict(
        dict(
            name=f"neural-{variant}",
            seed=0,
            data=data,
            model=MODELS[variant],
            # the KL's weight rises over the first half: at its full weight from the first step on,
            # topics collapse to the corpus's frequencies
            objective=dict(
                name="negative_elbo", beta=dict(name="linear_warmup", num_steps=1600, final=1.0)
            ),
            optim=dict(name="adam", learning_rate=dict(name="cosine", peak=1e-2)),
            # as of configs/base.py
            train=dict(
                batch_size=128,
                num_steps=3200,
                log_every=100,
                eval_every=1600,
                checkpoint_every=1600,
                checkpoint_minutes=5.0,
                clip_norm=0.0,
                ema=0.0,
            ),
            eval=dict(
                batch_size=64,  # documents at a time
                num_samples=32,  # of shares, for the ELBO and for the words that are predicted
                num_importance_samples=500,
                evidence_docs=300,  # whose log p(words) and k-hat are measured; 0: none
                refined_docs=100,  # whose shares are fitted to each alone, too; 0: none
            ),
        ),
        type_safe=False,  # a choice may be a name, a number or a group of fields
    )
