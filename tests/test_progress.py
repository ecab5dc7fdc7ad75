"""Signs of progress on slow work: rate and time left soon after the first step, of every kind of
work that takes long; and what is named where nothing else is shown.
"""

import re
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small

import vi_jax as vi
from experiments import build, cli, evals
from experiments.evals import evidence
from experiments.figures import image_grid
from experiments.run import heartbeat, replicas, session, single
from experiments.run.heartbeat import Heartbeat
from experiments.run.stopping import Stop

pytest_plugins = ["command_helpers"]
STEP = 1.5  # seconds that a slow step, or a slow chunk of samples, sleeps
LEFT = r"[\d.]+ steps/s  \d+:\d\d(:\d\d)? left"
MANY = {
    "train__num_steps": 1000,
    "train__log_every": 1000,
    "train__eval_every": 1000,
    "train__checkpoint_every": 1000,
}


@pytest.fixture(autouse=True)
def _no_key_check():
    """JAX takes the keys of a scan inside a vmap for used ones."""
    with jax.debug_key_reuse(False):
        yield


class Timed:
    """stderr with the time of each line, inside `with timed:`."""

    def __init__(self):
        self.lines = []  # (seconds, text)
        self._began = time.monotonic()
        self._open = ""

    def __enter__(self):
        self._real = sys.stderr  # that of pytest, which takes another one for each phase of a test
        sys.stderr = self

    def __exit__(self, *exception):
        sys.stderr = self._real

    def write(self, text):
        *whole, self._open = (self._open + text).split("\n")
        self.lines += [(time.monotonic() - self._began, line) for line in whole]

    def flush(self):
        pass

    def isatty(self):
        return False

    def first(self, pattern):
        """When a line with the pattern came."""
        found = [when for when, line in self.lines if re.search(pattern, line)]
        assert found, self.lines
        return found[0]


@pytest.fixture
def timed():
    return Timed()


class StopAfter(Stop):
    """Is asked to stop after so many parts."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def asked(self):
        self.left -= 1
        return self.left < 0


def sleeps(value, seconds):
    """The value, some seconds later, whenever a program gets there."""
    return jax.pure_callback(
        lambda number: (time.sleep(seconds), np.asarray(number))[1],
        jax.ShapeDtypeStruct(value.shape, value.dtype),
        value,
        vmap_method="legacy_vectorized",
    )


@pytest.fixture
def slow_steps(monkeypatch):
    real = build.step

    def slow(*args, **options):
        step = real(*args, **options)
        return lambda state, batch: step(state._replace(step=sleeps(state.step, STEP)), batch)

    monkeypatch.setattr(build, "step", slow)


@pytest.mark.cases(rest=None, slow=["stepwise"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "fields",
    [{}, {"train__loop": "stepwise"}, {"data__device_limit_mb": 0}],
    ids=["compiled", "stepwise", "streamed"],
)
def test_a_slow_step_is_seen_whatever_log_every(slow_steps, timed, tmp_path, fields):
    with timed, pytest.raises(cli.Requeue, match=r"step [4-7] of 1,000 is saved"):
        single.train(small(**MANY, **fields), tmp_path, resumed=False, stop=StopAfter(3))
    waited = timed.first(LEFT) - timed.first("the first step done")
    assert waited < 10.0
    [line] = [line for _, line in timed.lines if re.search(LEFT, line)]
    assert line.startswith("step 2/1,000  epoch 0.2  0.")
    assert "train ELBO -" in line


@pytest.mark.integration
def test_slow_replicas_are_seen_too(slow_steps, timed, tmp_path):
    with timed, pytest.raises(cli.Requeue, match=r"step [34] of 1,000 of every replica is saved"):
        replicas.train(small(**MANY, replicas=2), tmp_path, stop=StopAfter(2))
    assert timed.first(LEFT) - timed.first("the first step done") < 10.0
    assert any("train best ELBO -" in line for _, line in timed.lines)


@pytest.fixture
def model_and_data():
    built = session.build_all(small(eval__batch_size=1))
    return built, built.model, built.model.init(jax.random.key(3)), built.x[:8]


def slowed(model, **changes):
    """The model with densities of another kind, by its densities alone."""
    own = model.densities._replace(**changes)
    slow = vi.models.from_densities(model.init, own.guide, own.prior, own.decode, own.log_lik)
    return slow


@pytest.mark.integration
def test_slow_importance_samples_are_seen_within_a_batch(model_and_data, timed):
    """5,000 samples of 8 examples at once, 50 chunks of 1.5 s: the second one is told of."""
    _, model, params, x = model_and_data
    plain = model.densities.prior

    def prior(params, x):
        return jax.tree.map(lambda leaf: sleeps(leaf, STEP / 2), plain(params, x))

    slow = slowed(model, prior=prior)
    log_evidence = evidence.make_log_evidence(slow, num_samples=500, most=100, batch_size=8)
    with timed:
        values = log_evidence(jax.random.key(0), params, x)
    quick = evidence.make_log_evidence(model, num_samples=500, most=100, batch_size=8)
    np.testing.assert_array_equal(values.log_p, quick(jax.random.key(0), params, x).log_p)
    counted = r"log p\(x\), K = 500: (\d+) of 8 examples  [\d.]+ examples/s  \d+:\d\d left"
    first = next(match for _, line in timed.lines if (match := re.fullmatch(counted, line)))
    assert int(first[1]) <= 4
    assert timed.first(counted) < 30.0


@pytest.mark.integration
def test_a_slow_evaluation_is_seen(model_and_data, timed):
    built, model, params, x = model_and_data
    plain = model.densities.log_lik
    slow = slowed(model, log_lik=lambda params, x, z: sleeps(plain(params, x, z), STEP))
    subject = built.subject._replace(model=slow)
    with timed:
        found = evals.make_meter(subject, evals.METERS).measure(jax.random.key(0), params, x)
    quick = built.meter.measure(jax.random.key(0), params, x)
    np.testing.assert_allclose(
        [found.summary[name]["mean"] for name in ("elbo", "kl", "mutual_information")],
        [quick.summary[name]["mean"] for name in ("elbo", "kl", "mutual_information")],
        rtol=1e-5,
    )
    timed.first(r"evaluating: \d of 8 examples  [\d.]+ examples/s  0:\d\d left")


@pytest.mark.slow
def test_a_slow_density_is_seen(commands, tmp_path):
    """experiments.posterior of a model that sleeps for 0.2 s in each value: the steps of its
    method have a rate and the most that is left; the rest is named.
    """
    (tmp_path / "own.py").write_text(
        "import time, jax, jax.numpy as jnp, numpy as np, numpyro\n"
        "import numpyro.distributions as dist\n\n\n"
        "def wait(x):\n    time.sleep(0.2)\n    return np.asarray(x)\n\n\n"
        "def model():\n    mu = numpyro.sample('mu', dist.Normal(0.0, 1.0))\n"
        "    shape = jax.ShapeDtypeStruct((), mu.dtype)\n"
        "    late = jax.pure_callback(wait, shape, 0.0 * jax.lax.stop_gradient(mu),\n"
        "                             vmap_method='sequential')\n"
        "    numpyro.factor('late', late)\n"
        "    numpyro.sample('y', dist.Normal(mu, 1.0), obs=1.0)\n"
    )
    began = time.monotonic()
    done = commands.ok(
        "posterior",
        f"--config=configs/posterior/file.py:{tmp_path}/own.py:model",
        "--config.method=laplace",
        "--config.num_draws=100",
        f"--workdir={tmp_path}/run",
    )
    seconds = time.monotonic() - began
    line = r"^step 3/1,000  [\d.]+ steps/s  -\d+\.\d+ nats  at most \d+:\d\d left$"
    assert re.search(line, done.stderr, re.M)
    assert re.search(r"(now|still) weighing 100 samples, at most \d+ s at the pace", done.stderr)
    assert len(done.stderr.splitlines()) < 6 + seconds / 5


# --- what is named where nothing else is shown


@pytest.mark.integration
def test_compiling_a_slow_program_is_named(timed):
    """A step whose tracing takes 1 s, with thresholds of 0.2 s."""

    @jax.jit
    def step(x):
        time.sleep(1.0)  # while it is traced
        return x + 1.0

    with (
        timed,
        heartbeat.beating(Heartbeat(shortest=30.0, longest=30.0)),
        heartbeat.phase("compiling and taking the first step", patience=0.2),
    ):
        step(jnp.zeros(3))
    # the thread looks every 3 s
    assert [line for _, line in timed.lines] in ([], ["now compiling and taking the first step"])
    timed.lines.clear()
    with (
        timed,
        heartbeat.beating(Heartbeat(shortest=0.2, longest=0.2)),
        heartbeat.phase("taking it again", patience=0.2),
    ):
        step(jnp.zeros(4))
    assert 2 <= len(timed.lines) <= 6
    assert {line for _, line in timed.lines} == {"now taking it again"}


def test_a_figure_that_takes_long_is_named(timed, tmp_path, monkeypatch):
    real = np.clip
    monkeypatch.setattr(np, "clip", lambda *args, **more: (time.sleep(0.5), real(*args, **more))[1])
    with timed, heartbeat.beating(Heartbeat(shortest=0.1, longest=0.1)):
        image_grid(tmp_path / "samples.png", np.zeros((4, 8, 8)), title="four")
    assert "now drawing samples.png" in [line for _, line in timed.lines]
