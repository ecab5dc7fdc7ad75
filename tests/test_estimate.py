"""Estimates of memory and time: sizes that cannot be are refused before anything is allocated, what
can be is not, and the estimates are below what XLA allocates.
"""

import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import ROOT, small

from configs.vae import VARIANTS, get_config
from experiments import build, config_file, facts, settings
from experiments.cli import UserError
from experiments.evals import evidence
from experiments.overrides import Override
from experiments.run import duration, estimate, memory, programs, rough
from vi_jax.models import networks

GB = 1e9
BOUND = dict(
    objective__name="negative_bound", objective__bound="iwae", objective__estimator="reparam"
)


@pytest.fixture(autouse=True)
def _no_key_check():
    """JAX takes the keys of a scan inside a vmap for used ones."""
    with jax.debug_key_reuse(False):
        yield


def dataset(shape=(8, 8), num_levels=17, num_examples=360):
    """Data of a shape, of which no pixel is there."""
    split = types.SimpleNamespace(num=num_examples, labels=None)
    train = types.SimpleNamespace(num=1257, labels=None)
    return types.SimpleNamespace(
        train=train,
        test=split,
        validation=split,
        num_levels=num_levels,
        name="made",
        x_shape=shape,
        table=None,
        num_steps=0,
    )


def made(variant="digits", **changes):
    """A small config as a command has it, with fields set."""
    given = [Override(name.replace("__", "."), str(value)) for name, value in changes.items()]
    config = config_file.set_fields(small(variant), given)
    settings.validate(config)
    return config


@pytest.fixture
def hand(monkeypatch):
    """Sets what is at hand, in bytes; 16 GB if nothing is set."""

    def set_to(num_bytes):
        found = memory.AtHand(num_bytes, "in this test")
        monkeypatch.setattr(memory, "at_hand", lambda: found)

    set_to(16 * GB)
    return set_to


CANNOT_BE = {
    "train.batch_size": (dict(train__batch_size=10**9), "a step on a batch of config.train.batch"),
    "model.num_latents": (
        dict(model__num_latents=10**7, model__network__hidden=(256,)),
        "num_latents=10000000",
    ),
    "model.num_latents, narrow": (
        dict(model__num_latents=10**7),
        "config.train.batch_size=100 takes at least",
    ),
    "model.network.hidden": (
        dict(model__network__hidden=(10**6, 10**6)),
        "network.hidden=(1000000, 1000000)",
    ),
    "model.network.hidden, conv": (
        dict(model__network__name="conv", model__network__hidden=(10**6, 10**6)),
        "network.hidden=(1000000, 1000000)",
    ),
    "full_rank": (dict(model__num_latents=10**6, model__family="full_rank"), "1,000,000"),
    "low_rank": (dict(model__num_latents=10**8, model__family="low_rank"), "100000000"),
    "num_samples": (
        dict(objective__num_samples=10**8),
        "config.objective.num_samples=100,000,000",
    ),
    "num_samples, iwae": (
        dict(**BOUND, objective__num_samples=10**8),
        "config.objective.num_samples=100,000,000",
    ),
    "eval.num_samples": (dict(eval__num_samples=10**9), "config.eval.num_samples=1,000,000,000"),
    "eval.num_importance_samples": (
        dict(eval__num_importance_samples=10**9),
        "config.eval.num_importance_samples=1,000,000,000",
    ),
    "eval.num_importance_samples, a prime": (
        dict(eval__num_importance_samples=999_999_937),
        "999,999,937",
    ),
}


@pytest.mark.cases(rest=None, integration=["low_rank"])
@pytest.mark.parametrize("case", CANNOT_BE)
def test_a_size_that_cannot_be_is_refused(case, hand):
    changes, words = CANNOT_BE[case]
    config = made(**changes)
    with pytest.raises(UserError) as caught:
        estimate.require_run(config, dataset())
    text = str(caught.value)
    assert words in text, text
    assert "takes at least" in text
    assert "16.0 GB are at hand (in this test)" in text
    assert "; take " in text


def test_replicas_are_counted(hand, monkeypatch):
    config = made(model__network__hidden=(256, 256))
    with pytest.raises(UserError, match=r"files open, and this process may open"):
        estimate.require_run(config, dataset(), num_replicas=10**6)
    monkeypatch.setattr(estimate, "_require_files", lambda num_replicas: None)
    words = r"1,000,000 replicas.*at least 2\.\d TB.*take fewer replicas"
    with pytest.raises(UserError, match=words):
        estimate.require_run(config, dataset(), num_replicas=10**6)
    estimate.require_run(config, dataset(), num_replicas=100)


def test_samples_and_fits_are_counted(hand):
    config = made()
    estimate.require_samples(config, dataset(), 10**6)
    with pytest.raises(UserError, match=r"--num=1,000,000,000 prior samples .* at least 256 GB"):
        estimate.require_samples(config, dataset(), 10**9)
    fit = types.SimpleNamespace(num_starts=8, num_draws=4000, float64=True)
    estimate.require_fit(fit, 10, 1000)
    fit.num_draws = 10**9
    with pytest.raises(UserError, match=r"config.num_draws=1,000,000,000 .* at least 88\.0 GB"):
        estimate.require_fit(fit, 10, 1000)
    fit.num_draws = 4000
    fit.num_starts = 10**9
    with pytest.raises(UserError, match=r"config.num_starts=1,000,000,000 .* at least 8\.1 TB"):
        estimate.require_fit(fit, 10, 1000)


@pytest.mark.parametrize(
    "field", ["train__num_steps", "train__batch_size", "eval__num_samples", "replicas"]
)
def test_counts_that_no_counter_holds_are_refused(field):
    with pytest.raises(UserError, match=r"is 2147483648; it has to be at most 2,147,483,647"):
        made(**{field: 2**31})


@pytest.mark.cases(rest=None, integration=["fashion_mnist", "conv", "mnist"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_configs_are_not_refused(variant, hand):
    """On a small machine, nor with a size that fits it."""
    hand(4 * GB)
    shape = (28, 28) if "mnist" in variant or variant == "aevb" else (8, 8)
    found = dataset(shape, 256 if shape == (28, 28) else 17, 10_000)
    config = config_file.set_fields(get_config(variant), [])
    estimate.require_run(config, found)
    estimate.require_evaluation(config, found, num_samples=5_000)


@pytest.mark.integration
@pytest.mark.parametrize("rows", [20_000, 40_000])
def test_a_program_near_the_limit_is_judged_by_what_xla_says(rows, hand):
    """Refused where XLA will allocate more than is at hand, and not where it will not."""
    config = made(train__batch_size=rows, model__network__hidden=(256,))
    problem = estimate._problem(config, dataset())
    batch = jax.ShapeDtypeStruct((rows, 8, 8), np.uint8)
    step = build.step(config, problem.model, problem.units)
    exact = programs.allocated(step, problem.state, batch)
    hand(exact)
    estimate.require_run(config, dataset())
    hand(exact / 1.2)
    with pytest.raises(UserError, match=f"config.train.batch_size={rows:,} takes at least"):
        estimate.require_run(config, dataset())


@pytest.mark.cases(
    rest="slow",
    integration=[
        "{}",
        "{'model__network__name': 'conv'}",
        "{'precision': 'bfloat16'}",
        "{'model__family': 'full_rank'}",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(model__network__name="conv"),
        dict(**BOUND, objective__num_samples=16),
        dict(model__likelihood="categorical", data__binarisation="none"),
        dict(precision="bfloat16"),
        dict(optim__name="sgd", train__ema=0.0),
        dict(model__family="full_rank"),
        dict(model__family="planar", **BOUND),
        dict(model__family="maf", **BOUND),
    ],
    ids=str,
)
def test_estimates_are_below_what_xla_allocates(changes):
    """The oracle: a lower bound that is not below the truth refuses what can be."""
    sizes = dict(train__batch_size=500, model__network__hidden=(64,), model__num_latents=16)
    config = made(**sizes | changes)
    problem = estimate._problem(config, dataset())
    batch = jax.ShapeDtypeStruct((500, 8, 8), np.uint8)
    step = build.step(config, problem.model, problem.units)
    inputs = programs.num_bytes((problem.state, batch))
    least = inputs + programs.largest(step, problem.state, batch)
    exact = programs.allocated(step, problem.state, batch)
    assert exact / 30 < least < estimate.TRACED * exact
    guess = rough.num_bytes(config, dataset(), 500 * rough.samples_of(config))
    assert guess > exact / 3, "a guess that is too low looks at nothing"


def test_importance_samples_count_in_chunks():
    """As they run: the arrays of a chunk, and the keys of all of them."""
    config = made(model__network__hidden=(64,))
    problem = estimate._problem(config, dataset())
    x = jax.ShapeDtypeStruct((100, 8, 8), np.float32)

    def sizes(num_samples, chunk):
        program = evidence.make_program(problem.model, num_samples // chunk, chunk)
        sums = jax.eval_shape(lambda: evidence.no_sums(100, num_samples))
        number = jax.ShapeDtypeStruct((), np.int32)
        arguments = (sums, estimate._keys(100), problem.state.params, x, number, number)
        return programs.largest(program, *arguments), programs.products(program, *arguments)

    few, flops = sizes(1_000, 100)
    assert sizes(10_000, 100)[0] == pytest.approx(few, rel=0.05)
    assert sizes(1_000, 200)[0] == pytest.approx(2 * few, rel=0.1)
    weights = 3 * 64 + 64 * 64  # of the decoder, each used twice a sample
    encoder = 64 * 64 + 64 * 6
    assert flops == pytest.approx(100 * 2 * (100 * weights + encoder), rel=0.01)


def test_sizes_of_programs_are_those_of_their_arrays():
    a = jax.ShapeDtypeStruct((100, 200), np.float32)
    b = jax.ShapeDtypeStruct((200, 300), np.float32)
    arrays = 4 * (100 * 200 + 200 * 300 + 100 * 300)

    def chained(a, b):
        def one(carry, _):
            return carry, jnp.tanh(a) @ (b * carry)

        return jax.lax.scan(one, 1.0, None, length=7)[1].sum()

    assert programs.largest(jnp.dot, a, b) == arrays
    assert programs.largest(lambda a: (a * 2.0).sum(), a) == 0.0
    assert programs.products(jnp.dot, a, b) == 2 * 100 * 200 * 300
    assert programs.products(chained, a, b) == 7 * 2 * 100 * 200 * 300
    stacked = 4 * (100 * 200 + 200 * 300 + 7 * 100 * 300)
    assert programs.largest(chained, a, b) == stacked
    assert programs.num_bytes([a, jax.eval_shape(lambda: jax.random.key(0))]) == 4 * 20_000 + 8


@pytest.mark.parametrize("layer", [networks.Conv, networks.ConvTranspose])
def test_convolutions_count_their_products_and_their_arrays(layer):
    """The layer, and both its gradients, of 5 images: each is the same number of products."""
    module = layer(4, (3, 3), (2, 2))
    x = jax.ShapeDtypeStruct((5, 6, 8, 3), np.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)

    def both(params, x):
        return jax.grad(lambda params, x: module.apply(params, x).sum(), (0, 1))(params, x)

    is_transpose = layer is networks.ConvTranspose
    outputs = 5 * (12 * 16 if is_transpose else 3 * 4)
    windows = 5 * (6 * 8 if is_transpose else 3 * 4)
    products = 2 * windows * 9 * 3 * 4
    assert programs.products(module.apply, params, x) == products
    assert programs.products(both, params, x) == 3 * products
    arrays = 4 * (5 * 6 * 8 * 3 + 9 * 3 * 4 + 4 * outputs)
    assert programs.largest(module.apply, params, x) == arrays


def test_importance_sampling_of_days_is_refused_and_of_minutes_is_said(hand, monkeypatch, capsys):
    monkeypatch.setattr(duration, "rate", lambda: 1e11)
    config = made(model__network__hidden=(256, 256))
    estimate.require_evaluation(config, dataset(), num_samples=10**7)
    said = capsys.readouterr().err
    assert said.startswith("note: log p(x) with config.eval.num_importance_samples=10,000,000 on ")
    monkeypatch.setattr(duration, "SLOW_SECONDS", 3600.0)
    with pytest.raises(UserError, match=r"--num_samples=100,000,000 on 360 .* at least \d+ days"):
        estimate.require_evaluation(config, dataset(), num_samples=10**8, key="--num_samples")


# --- what is at hand


def test_memory_of_the_machine(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 100 kB\nMemFree:   10 kB\nMemAvailable:   50 kB\nSwapFree: 7 kB\n")
    assert [found.num_bytes for found in memory._of_machine(path)] == [57 * 1024]
    assert list(memory._of_machine(tmp_path / "none")) == []


@pytest.mark.parametrize("version", [1, 2])
def test_memory_of_control_groups(version, tmp_path):
    """The group and those around it; what has no limit does not count."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    root = tmp_path / "root"
    inner = (root / "memory" if version == 1 else root) / "jobs" / "mine"
    inner.mkdir(parents=True)
    for folder, limit, usage, kept in (
        (inner, "1000", "700", "100"),
        (inner.parent, "5000", "4500", "0"),
        (inner.parents[1], str(2**63 - 4096) if version == 1 else "max", "4500", "0"),
    ):
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text(usage + "\n")
        (folder / "memory.stat").write_text(f"cache 5\n{names[2]} {kept}\n")
    membership = tmp_path / "cgroup"
    controllers = "cpu,memory" if version == 1 else ""
    membership.write_text(f"{5 if version == 1 else 0}:{controllers}:/jobs/mine\n3:pids:/other\n")
    found = memory._of_groups(root, membership)
    assert sorted(each.num_bytes for each in found) == [400.0, 500.0]


def test_memory_that_ulimit_leaves():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30));"
        "from experiments.run import memory; print(*memory._of_process())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ulimit -v" in done.stdout
    num_bytes = float(done.stdout.split("num_bytes=")[1].split(",")[0])
    assert 2 * 2**30 < num_bytes < 3 * 2**30


def test_the_least_is_what_counts(monkeypatch):
    low = memory.AtHand(1.0, "low")
    high = memory.AtHand(2.0, "high")
    monkeypatch.setattr(memory, "_of_machine", lambda: [high])
    monkeypatch.setattr(memory, "_of_groups", lambda: [low])
    monkeypatch.setattr(memory, "_of_process", list)
    assert memory.at_hand() == low
    for name in ("_of_machine", "_of_groups"):
        monkeypatch.setattr(memory, name, list)
    assert memory.at_hand().num_bytes == float("inf")


def test_memory_of_accelerators(monkeypatch):
    class Device:
        platform = "gpu"
        device_kind = "made"

        def memory_stats(self):
            return {"bytes_limit": 100, "bytes_in_use": 30}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(), Device()])
    assert memory.at_hand() == memory.AtHand(140.0, "on 2 x made")
    monkeypatch.setattr(Device, "memory_stats", lambda self: None)
    assert memory.at_hand().num_bytes == float("inf")


def test_bytes_in_words():
    assert [memory.in_words(n) for n in (0, 999, 1500, 4.26e12, 1e19)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "4.3 TB",
        "10,000 PB",
    ]


def test_a_run_that_is_refused_allocates_nothing(hand, monkeypatch):
    """No array is made on the way to the refusal, and no program compiled."""
    config = made(model__network__hidden=(10**6, 10**6))
    monkeypatch.setattr(facts, "mean_image", lambda dataset: pytest.fail("it made an array"))
    monkeypatch.setattr(programs, "allocated", lambda *args: pytest.fail("it compiled"))
    with pytest.raises(UserError, match="takes at least"):
        estimate.require_run(config, dataset())
