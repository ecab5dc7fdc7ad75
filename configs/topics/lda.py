"""Topics of a corpus by latent Dirichlet allocation (Blei et al. 2003). No download, half a minute.

    python -m experiments.documents --config=configs/topics/lda.py
    python -m experiments.documents --config=configs/topics/lda.py --config.data.name=texts:DIR
    python -m experiments.documents --config=configs/topics/lda.py:svi --config.data.name=npz:FILE

The default corpus is the documentation of SciPy and scikit-learn, from their installed sources.
Variants: partly (default, as of `vi.topics.fit_lda`: the topics at their mean, the shares
variational; of the methods with a bound it predicts held-out words best), memoized (variational
Bayes of both: its ELBO bounds log p(words) and never falls), cvb0 (zero-order collapsed variational
Bayes, without a bound), svi (stochastic variational inference of Hoffman et al. 2013: few passes
over many documents), ctm (the correlated topic model of Blei & Lafferty 2007, whose shares are a
softmax of a normal with a full covariance: figures/correlations.png has its correlations).
"""

from ml_collections import ConfigDict

from configs.base import check_variant
from configs.topics import base

VARIANTS = ("partly", "memoized", "cvb0", "svi", "ctm")


def get_config(variant: str = "partly") -> ConfigDict:
    """The config of one variant."""
    check_variant(variant, VARIANTS, "configs/topics/lda.py")
    return ConfigDict(
        dict(
            name=f"lda-{variant}",
            seed=0,
            data=base.documents(),
            model=dict(
                method=variant,  # partly | memoized | cvb0 | svi | cavi | ctm
                num_topics=20,
                alpha="learn",  # of the prior of shares: learned, one a topic; or a number
                eta=0.0,  # of the prior of topics; 0 is the method's default
                num_starts=1,  # side by side; the best is kept, and each topic's share of them said
            ),
            fit=dict(
                num_sweeps=20 if variant == "svi" else 200,  # over the corpus, at most
                tolerance=1e-5,  # nats a token: a sweep that moves the bound by less is the last
                batch_size=256,  # of svi: documents of a step
                # of svi: step t moves the topics by (tau0 + t)^-kappa
                kappa=0.7,
                tau0=10.0,
                measure_every=10,  # sweeps between two perplexities of the held-out documents
                checkpoint_minutes=5.0,  # between two saves of the state; 0 saves at the end only
                # of which it is said whether their shares can be read; 0: none
                evidence_docs=0 if variant == "ctm" else 300,
            ),
        )
    )
