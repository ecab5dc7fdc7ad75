"""One guide of an example for all evaluations."""

import jax
import numpy as np
import pytest
from command_helpers import small

from experiments import evals
from experiments.evals.shared_guide import SharedGuide
from experiments.run import session


def counted(model, calls):
    """The model, which writes down each call of its guide."""
    guide = model.densities.guide

    def count(params, x):
        calls.append(1)
        return guide(params, x)

    return model._replace(densities=model.densities._replace(guide=count))


@pytest.fixture(scope="module")
def built():
    return session.build_all(small())


def test_a_guide_is_found_once_for_the_same_arrays_and_anew_for_others(built):
    calls = []
    shared = SharedGuide(counted(built.model, calls))
    params = built.model.init(jax.random.key(0))
    x = built.x[0]
    guide = shared.model.densities.guide
    with shared.of(params, x):
        assert guide(params, x) is guide(params, x)
        assert len(calls) == 1
        guide(params, x + 0.0)
        assert len(calls) == 2
    guide(params, x)  # nothing is kept
    assert len(calls) == 3
    with pytest.raises(KeyError), shared.of(params, x):
        raise KeyError("x")
    guide(params, x)
    assert len(calls) == 5


def test_measures_are_the_same_and_evaluations_share_the_guide(built):
    calls = []
    model = counted(built.model, calls)
    params = built.model.init(jax.random.key(0))
    x = built.x[:8]
    subject = built.subject._replace(model=model)
    makers = (evals.latents, evals.codes)
    together = evals.make_meter(subject, makers)
    found = together.measure(jax.random.key(1), params, x)
    num_reduced = 2  # in the aggregate posterior
    assert len(calls) == 1 + num_reduced
    means = [built.model.densities.guide(params, each).mean for each in x]
    np.testing.assert_allclose(found.arrays["latent_mean"]["z"], np.stack(means), rtol=1e-5)
