"""The contenders of `benchmarks.throughput` are the same model: one loss at the same weights, and
all of them learn.
"""

import jax
import numpy as np
import pytest

throughput = pytest.importorskip("benchmarks.throughput")

from benchmarks import contenders_jax, contenders_vi, throughput_table, wide  # noqa: E402
from benchmarks.contenders import CONTENDERS  # noqa: E402
from benchmarks.problem import NotAvailable, Problem, make_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_key_check")

RNG = np.random.default_rng(0)
SMALL = {
    "elbo": Problem(
        "elbo", (12,), (7,), 2, 1, 16, 3, RNG.integers(0, 256, (40, 12), np.uint8), "noise"
    ),
    "iwae": Problem(
        "iwae", (12,), (7, 6), 2, 5, 16, 3, RNG.integers(0, 256, (40, 12), np.uint8), "noise"
    ),
    "conv": Problem(
        "conv",
        (8, 8, 3),
        (4, 5),
        2,
        1,
        16,
        3,
        RNG.integers(0, 256, (40, 8, 8, 3), np.uint8),
        "noise",
    ),
    "odd": Problem(
        "conv",
        (9, 6, 3),
        (4, 5),
        2,
        1,
        16,
        3,
        RNG.integers(0, 256, (40, 9, 6, 3), np.uint8),
        "noise",
    ),
}


def start(contender, problem, weights):
    x = np.float32(problem.pixels[: problem.batch_size] > 127)
    try:
        return throughput.get_ready(contender, problem, weights, x, 0.01)
    except NotAvailable as reason:
        return pytest.skip(str(reason))


def noisy(problem):
    """Weights at which the bound, the kernels' orientation and their biases all show: nothing is
    small or symmetric.
    """
    return {
        name: value + 0.3 * RNG.standard_normal(value.shape).astype(np.float32)
        for name, value in make_weights(problem).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_all_contenders_have_one_loss(name):
    problem = SMALL[name]
    weights = noisy(SMALL[name])
    all_ready = [
        start(contender, problem, weights)
        for contender in CONTENDERS
        if "compiled" not in contender.name
    ]
    loss, stderr = throughput.require_agreement(all_ready)
    assert stderr < 0.02 * loss
    off = [np.mean(ready.losses) for ready in all_ready if ready.losses]
    assert len(off) == 7
    np.testing.assert_allclose(off, loss, rtol=0.03)
    for ready in all_ready:
        if ready.losses:
            assert ready.running.steps(300) > -loss + 0.5, f"{ready.contender.name} does not learn"


@pytest.mark.integration
def test_ours_and_that_by_hand_have_one_loss_and_another_is_seen():
    problem = SMALL["iwae"]
    weights = noisy(SMALL["iwae"])
    pair = [
        start(contender, problem, weights)
        for contender in (contenders_vi.VI_JAX, contenders_jax.HAND_JIT)
    ]
    throughput.require_agreement(pair)
    worse = pair[0]._replace(losses=[loss + 1.0 for loss in pair[0].losses])
    with pytest.raises(RuntimeError, match="another loss"):
        throughput.require_agreement([pair[0], pair[1], worse])


def test_a_table_has_a_row_for_each_contender_and_the_numbers_of_its_turns():
    """Two rounds made up: rates, their ratio within a round, milliseconds of processor time."""
    names = ("vi_jax", "hand-written loop", "matrix products alone")
    found = {
        "title": "MLP",
        "source": "noise",
        "load_average": 0.25,
        "loss_at_start": 1.0,
        "loss_stderr": 0.1,
        "rates": dict(zip(names, ([10.0, 20.0], [20.0, 50.0], [40.0, 40.0]), strict=True)),
        "processor": dict(zip(names, ([0.1, 0.1], [0.2, 1.8], [0.001, 0.002]), strict=True)),
        "alone": {},
        "not_available": {},
    }
    text = throughput_table.describe({"mlp": found})
    table = [line.strip("| ").split(" | ") for line in text.split("\n\n")[0].split("\n")]
    assert [len(row) for row in table] == [6] * 5
    assert table[3][1:6] == [
        "35",
        "2.25 (2.00..2.50)",
        "1.00 (1.00..1.00), the floor",
        "1.40",
        "1,000",
    ]
    assert "noise; 2 rounds; " in text
    assert "the load average before was 0.2" in text
    process = dict(imports=1.0, compiling=2.0, memory=3000.0)
    text = throughput_table.describe({"mlp": found | {"alone": dict.fromkeys(names, process)}})
    assert text.count("| 2.0 | 1.0 | 3,000 |") == 3


@pytest.mark.integration
def test_the_limit_counts_every_product():
    """6 products forwards, and backwards all of them twice but for the one that meets the data."""
    problem = SMALL["iwae"]
    kernels = {name: value for name, value in make_weights(problem).items() if name.endswith("w")}
    jaxpr = jax.make_jaxpr(
        lambda w: contenders_jax.products(problem, w, np.ones((4, 12), np.float32))
    )(kernels)
    assert str(jaxpr).count("dot_general[") == 6 + 2 * 6 - 1
    running = contenders_jax.start_products(problem, make_weights(problem))
    assert np.isnan(running.steps(problem.block))
    assert running.loss is None


@pytest.mark.slow
def test_the_wide_model_counts_its_operations_and_runs_small():
    problem = wide.wide_problem(hidden=8, batch_size=16)._replace(block=2)
    widths = [784 * 8, 8 * 8, 8 * 40, 20 * 8, 8 * 8, 8 * 784]
    assert wide.product_flops(problem) == 2 * 16 * (3 * sum(widths) - widths[0])
    result, text = wide.measure_and_describe(1, side=64, problem=problem)
    assert set(result) == {"bfloat16", "float32"}
    assert all(found["part"] > 0 for found in result.values())
    assert "of one of 64 x 64" in text
