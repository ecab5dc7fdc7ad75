"""One row of docs/papers.md."""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    what: str
    config: str  # FILE:VARIANT of configs/
    published: str
    confidence: str
    # of evaluation-test.json, a dot for what lies within: a mean with its standard error, or a
    # number. Nats of log p are turned round, so that lower is better
    measure: str
    passes: float
    beats: float
    fields: tuple[str, ...] = ()  # as --config.FIELD=VALUE
    seeds: tuple[int, ...] = (0,)
    seed_field: str = "seed"  # the field of the config that the seeds are of
    num_samples: int = 5000  # K of log p(x)
    num_bracket: int = 200  # examples between annealed bounds; 0: the latents are not real
    num_refit: int = 50  # examples to which the guide is refitted
    against: str = ""  # the row that this one is to be below: the value is the difference
    is_higher_better: bool = False
    is_within: bool = False  # the goals are of the value's size, whatever its sign
    sigmas: float = 0.0  # standard errors that the value has to be above 0, to be reached
    # whether a row against another has to be above it at every evaluation of the training too,
    # from FIRST_SAMPLES on, to beat
    has_curve: bool = False
    checkpoint: str = "latest"  # or best, of rows that keep the best of the validation split
    num_weights: int = 0  # samples of the weights, of rows by full_vb
    num_train: int = 0  # training examples whose log p(x) is set beside the test images'
    num_reciprocal: int = 0  # examples of appendix D's estimator
    is_median: bool = False  # over the seeds, in place of the mean
    run_of: str = ""  # the row whose run this one measures, in place of one of its own
    # per cent of the pixels that experiments.impute hides; `measure` is then of its imputed.json
    missing: int = 0
    unit: float = 1.0  # what the measure is multiplied by: 100 for per cent
    on_gpu: bool = False  # a run of all rows leaves it out, and the page has its command


NATS = ("elbo", "log_evidence", "predictive")
FIRST_SAMPLES = 100_000  # training samples, from which curves are compared
CONFIDENCES = ("S", "R", "M", "-")
