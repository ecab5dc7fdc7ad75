"""What `benchmarks.tables` chooses from: recipes and shapes for each data set."""

from typing import NamedTuple

from benchmarks.tables_fit import Recipe
from benchmarks.tables_model import Beliefs, Shape


class Candidate(NamedTuple):
    """A model to choose from: a mixture of so many parts of a shape."""

    shape: Shape
    num_parts: int = 1


SEEDS = 3
NUM_EVIDENCE = 2000  # importance samples of log p(x)
NUM_DRAWS = 400  # of an imputation
VALIDATION = 10  # one in so many training rows
K_HAT = 0.7
REAL = Recipe(learning_rate=1e-2)
STUDENT = Shape(4)
LINEAR = Shape(4, "gaussian", "linearised")
EXACT = REAL._replace(num_samples=1, num_validation=1)  # of LINEAR, whose guide is the posterior
DENSITIES = {
    "breast_cancer": (
        REAL._replace(num_steps=3000),
        (
            Candidate(STUDENT._replace(num_latents=16)),
            Candidate(STUDENT._replace(num_latents=20, min_scale=0.002)),
        ),
    ),
    "wine": (
        REAL._replace(num_steps=1000),
        (Candidate(STUDENT._replace(num_latents=3)), Candidate(STUDENT)),
    ),
}
# recipe, candidates by the share that is missing, on logarithms; numbers of latents and beliefs by
# cross-validation of the training rows, between the least error and the coverage
IMPUTED = {
    "breast_cancer": (
        EXACT._replace(num_steps=1500, beliefs=Beliefs(scales=20.0)),
        {
            0.2: (Candidate(LINEAR._replace(num_latents=20)),),
            0.5: (Candidate(LINEAR._replace(num_latents=12)),),
        },
        True,
    ),
    "wine": (
        EXACT._replace(num_steps=1000, beliefs=Beliefs(scales=20.0), is_stopped=False),
        dict.fromkeys((0.2, 0.5), (Candidate(LINEAR._replace(num_latents=3)),)),
        True,
    ),
    "digits": (
        EXACT._replace(
            num_steps=1000, beliefs=Beliefs(weights=10.0, biases=0.1, scales=5.0), is_stopped=False
        ),
        dict.fromkeys((0.2, 0.5), (Candidate(LINEAR._replace(num_latents=12, min_scale=0.3), 20),)),
        False,
    ),
}
SHARES = (0.2, 0.5)
COUNTED = Recipe(num_steps=1000, learning_rate=1e-2)
