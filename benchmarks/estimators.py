"""Every gradient estimator on every bound that it is valid for: noise, bias and time, relative to
plain reparameterisation.

    python -m benchmarks.estimators                  # under 5 minutes on 1 core
    python -m benchmarks.estimators --write          # and put the table into benchmarks/README.md

Two problems, each at parameters that a short training leaves: a VAE on scikit-learn's digits (or
MNIST's images, binarised, with --data_dir), and logistic regression on its breast cancer data under
a mean-field Gaussian. The gradient is that in all parameters of the guide; for the VAE it is the
mean over a batch.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from sklearn import datasets

import vi_jax as vi
from benchmarks import problem, report
from vi_jax.attributes import attribute

BOUNDS = {
    "elbo": vi.bounds.elbo,
    "iwae": vi.bounds.iwae,
    "vr_iwae": functools.partial(vi.bounds.vr_iwae, alpha=0.5),
    "miwae": functools.partial(vi.bounds.miwae, num_groups=4),
    "ciwae": functools.partial(vi.bounds.ciwae, beta=0.5),
}
TITLES = {
    "elbo": "ELBO",
    "iwae": "IWAE",
    "vr_iwae": "VR-IWAE 0.5",
    "miwae": "MIWAE, 4 groups",
    "ciwae": "CIWAE 0.5",
}
Estimate = Callable[..., jax.Array]


class Task(NamedTuple):
    """A guide's parameters, and what is to be estimated for them."""

    name: str
    params: Any
    value: Callable[[Any, jax.Array, Estimate, Callable[[jax.Array], jax.Array], int], jax.Array]


class Row(NamedTuple):
    """What is measured of one estimator on one bound."""

    variance: float  # trace of the covariance of one gradient
    # root mean square over parameters of (mean - reference) / its standard error: 1 for an unbiased
    # one
    bias: float
    time: float  # a call, relative to plain reparameterisation


def digits_vae(data_dir: str, num_steps: int = 500) -> Task:
    """64-64-8 on binarised digits, or 784-64-8 on MNIST; the encoder's gradient over 8 images."""
    if data_dir:
        posed, source = problem.make_problem("784-64-8", 100, 100, data_dir)
        x = jnp.asarray(posed.pixels[:10_000] > 127, jnp.float32)
        name = f"VAE 784-64-8, {source}"
    else:
        x = jnp.asarray(datasets.load_digits().data > 7, jnp.float32)
        name = "VAE 64-64-8, digits"
    model = vi.models.vae(x.shape[1:], num_latents=8, hidden=(64,))
    params, _ = vi.train(
        jax.random.key(0),
        model,
        vi.losses.negative_elbo(model),
        optax.adam(3e-3),
        x,
        num_steps=num_steps,
        batch_size=100,
    )
    batch = x[:8]

    def value(encoder, key, estimate, bound, num_samples):
        whole = {**params, "encoder": encoder}
        return vi.losses.batch_bound(
            key, model, whole, batch, bound, estimate, num_samples=num_samples
        ).mean()

    return Task(name, params["encoder"], value)


def logistic_regression(num_steps: int = 500) -> Task:
    """p(y | x, z) = Bernoulli(x'z) on 569 rows of 30 standardised columns and a 1, z ~ N(0, I)."""
    bunch = datasets.load_breast_cancer()
    columns = (bunch.data - bunch.data.mean(0)) / bunch.data.std(0)
    x = jnp.asarray(np.c_[columns, np.ones(len(columns))], jnp.float32)
    y = jnp.asarray(bunch.target, jnp.float32)
    num_latents = x.shape[1]

    def guide(params):
        return dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1)

    def log_joint(z):
        return (
            dist.Normal(0.0, 1.0).log_prob(z).sum()
            + vi.distributions.Bernoulli(x @ z).log_prob(y).sum()
        )

    def value(params, key, estimate, bound, num_samples):
        return estimate(key, bound, log_joint, guide(params), num_samples=num_samples)

    optimizer = optax.adam(3e-2)
    params = {"loc": jnp.zeros(num_latents), "log_scale": jnp.full(num_latents, -1.0)}

    @jax.jit
    def fit(params, keys):
        def step(carry, key):
            params, state = carry
            gradient = jax.grad(
                lambda params: -value(params, key, vi.estimators.stl, vi.bounds.elbo, 8)
            )(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    return Task(
        "logistic regression, breast cancer",
        fit(params, jax.random.split(jax.random.key(1), num_steps)),
        value,
    )


def contenders() -> list[tuple[str, str]]:
    """(bound, estimator), of those for Gaussian guides, plain reparameterisation first."""
    found = []
    for name in vi.estimators.__all__:
        estimator = getattr(vi.estimators, name)
        if "gaussian" not in getattr(estimator, "guides", ("gaussian",)) or name == "enumerated":
            continue
        needs = estimator.needs
        found += [
            (bound, name)
            for bound, function in BOUNDS.items()
            if not needs or attribute(function, needs)
        ]
    order = list(BOUNDS)
    return sorted(found, key=lambda pair: (order.index(pair[0]), pair[1] != "reparam", pair[1]))


def gradient(
    task: Task, bound: str, estimator: str, num_samples: int
) -> Callable[[jax.Array], jax.Array]:
    """key -> the gradient as one vector, compiled."""
    estimate = getattr(vi.estimators, estimator)

    def one(key):
        grads = jax.grad(task.value)(task.params, key, estimate, BOUNDS[bound], num_samples)
        return jax.flatten_util.ravel_pytree(grads)[0]

    return jax.jit(one)


def moments(
    one: Callable[[jax.Array], jax.Array], seed: int, num_keys: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each coordinate over `num_keys` gradients, float64."""
    many = jax.jit(jax.vmap(one))
    total = 0.0
    squares = 0.0
    for keys in jax.random.split(jax.random.key(seed), (num_keys // 20, 20)):
        block = np.asarray(many(keys), np.float64)
        total = total + block.sum(0)
        squares = squares + (block**2).sum(0)
    mean = total / num_keys
    return mean, np.maximum(squares / num_keys - mean**2, 0.0) * num_keys / (num_keys - 1)


def relative_time(
    one: Callable[[jax.Array], jax.Array], plain: Callable[[jax.Array], jax.Array], repeats: int
) -> float:
    """The least time of a compiled call over the least of `plain`, the two taking turns: what other
    jobs take is left out.
    """
    key = jax.random.key(0)
    taken: tuple[list[float], list[float]] = ([], [])
    for i in range(repeats + 1):
        for seconds, function in zip(taken, (one, plain), strict=True):
            began = time.perf_counter()
            function(key).block_until_ready()
            if i:  # the first compiles
                seconds.append(time.perf_counter() - began)
    return min(taken[0]) / min(taken[1])


def measure(task: Task, flags: argparse.Namespace) -> dict[tuple[str, str], Row]:
    """A row for every (bound, estimator)."""
    rows = {}
    references = {}
    plain = {}
    for bound, estimator in contenders():
        one = gradient(task, bound, estimator, flags.num_samples)
        if estimator == "reparam":
            plain[bound] = one
            mean, variance = moments(one, 1, flags.reference_keys)
            references[bound] = mean, variance / flags.reference_keys
        mean, variance = moments(one, 2, flags.num_keys)
        reference, noise = references[bound]
        stderr = np.sqrt(variance / flags.num_keys + noise)
        off = ((mean - reference) / np.where(stderr > 0, stderr, 1.0))[stderr > 0]
        row = Row(
            float(variance.sum()),
            float(np.sqrt(np.mean(off**2))),
            relative_time(one, plain[bound], flags.repeats),
        )
        rows[bound, estimator] = row
        report.say(
            f"{task.name}: {bound} {estimator}: variance {row.variance:.3g}, bias "
            f"{row.bias:.2f}, time {row.time:.2f}"
        )
    return rows


def table(results: dict[str, dict[tuple[str, str], Row]]) -> report.LongTable:
    """All problems side by side, each row relative to `reparam` on the same bound."""
    head = ["bound, estimator"]
    for name in results:
        head += [f"{name}: variance", f"{name}: bias, standard errors", f"{name}: time"]
    rows = []
    for bound, estimator in next(iter(results.values())):
        cells = [f"{TITLES[bound]}, `{estimator}`"]
        for measured in results.values():
            row = measured[bound, estimator]
            plain = measured[bound, "reparam"]
            cells += [f"{row.variance / plain.variance:.3g}", f"{row.bias:.2f}", f"{row.time:.2f}"]
        rows.append(cells)
    return report.LongTable(head, rows)


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    results = {
        task.name: measure(task, flags)
        for task in (digits_vae(flags.data_dir), logistic_regression())
    }
    packages = ("jax", "jaxlib", "numpyro", "vi_jax")
    note = (
        f"K = {flags.num_samples} draws, {flags.num_keys:,} gradients a row, in all parameters of "
        "the guide after a short training. Variance: trace of the covariance over that of "
        "`reparam` on the same bound. Bias: root mean square over the parameters of the mean's "
        f"distance to that of {flags.reference_keys:,} other `reparam` gradients, in standard "
        "errors of the difference; about 1 where there is none. Time: the least of "
        f"{flags.repeats} compiled calls over that of `reparam`, the two taking turns. "
        f"{report.used(*packages)} {report.link('estimators')}"
    )
    whole = table(results)
    shown = [row for row in whole.rows if row[0].startswith(("ELBO,", "IWAE,"))]
    text = f"{report.markdown_table(whole.head, shown)}\n\n{note}"
    plain = {
        name: {f"{b} {e}": row._asdict() for (b, e), row in rows.items()}
        for name, rows in results.items()
    }
    numbers = {"device": report.device_name(), "versions": report.versions(*packages)}
    numbers |= {"results": plain}
    report.finish("estimators", text, flags, numbers, whole)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser(
        "Noise, bias and time of every gradient estimator on every bound it is valid for."
    )
    parser.add_argument(
        "--num_samples", type=int, default=16, help="K, draws of a bound; a multiple of 4"
    )
    parser.add_argument("--num_keys", type=int, default=400, help="gradients a row")
    parser.add_argument(
        "--reference_keys",
        type=int,
        default=2_000,
        help="plain gradients that the mean is held against",
    )
    parser.add_argument("--repeats", type=int, default=200, help="timed calls")
    parser.add_argument(
        "--data_dir",
        default="",
        help="folder with MNIST's training images; the digits if not given",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
