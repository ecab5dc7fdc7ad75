"""The NumPyro models that `experiments.posterior` knows by name; data embedded here or in
scikit-learn.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.cli import UserError, suggest
from experiments.posteriors import own
from vi_jax import files

NAMES = ("eight_schools_noncentered", "eight_schools_centered", "breast_cancer", "diabetes")
FILE = "file:"  # before PATH.py:FUNCTION, a model of the user's own
RECORDED = "recorded "  # before that, where a record names it and not the user (configs/replay.py)
EFFECTS = (
    28.0,
    8.0,
    -3.0,
    7.0,
    -1.0,
    1.0,
    18.0,
    12.0,
)  # Rubin 1981, table 5.2 of Gelman et al. 2013
STDERRS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def check_name(name: str) -> None:
    """Raises UserError where no model goes by this name."""
    if name.startswith(RECORDED):
        theirs = name.removeprefix(RECORDED)
        raise UserError(
            f"the model of this record is {theirs}, and a record runs no code: look at that file, "
            f"and name it yourself, --config.model={theirs}."
        )
    if name.startswith(FILE):
        path = name.removeprefix(FILE).rpartition(":")[0]
        if not Path(path).is_file():
            raise UserError(f"config.model {name!r}: there is no file {path!r}.")
    elif not name.startswith("posteriordb:") and name not in NAMES:
        raise UserError(
            f"config.model is {name!r}; it can be {', '.join(NAMES)}, posteriordb:NAME or "
            f"file:PATH.py:FUNCTION{suggest(name, NAMES)}."
        )


def check_data(name: str, data: str) -> None:
    """Raises UserError where data are given to a model that has its own, or are no file."""
    if data and not name.startswith(FILE):
        raise UserError(
            f"config.data is {data!r}, and the model {name!r} has its own data; it goes with "
            "file:PATH.py:FUNCTION."
        )
    if data and not Path(data).is_file():
        raise UserError(f"config.data is {data!r}, which is no file; give the path of an .npz.")


def fingerprint(name: str, data: str) -> dict[str, str]:
    """What says which model on which data a run is of."""
    if not data:
        return {"name": name}
    with files.open_regular(data, follow=True) as file:
        return {
            "name": name,
            "source": data,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def get_model(name: str, data_dir: str, data: str = "") -> tuple[Callable[[], Any], Any]:
    """A NumPyro model without arguments, and its posteriordb Posterior where it has one.

    Args:
      data: an .npz, whose arrays a model of a file is called with; "" for none.

    Raises:
      UserError: no such function, file, posterior or data, or data that are not the model's
        arguments.
    """
    if name.startswith(FILE):
        model = own.from_file(name.removeprefix(FILE))
        arguments = own.arguments_of(model, name.rpartition(":")[2], data)
        return functools.partial(model, **arguments), None
    if name.startswith("posteriordb:"):
        from experiments import posteriordb
        from experiments.data.base import DataError

        try:
            posterior = posteriordb.load(name.removeprefix("posteriordb:"), Path(data_dir or "."))
        except DataError as error:
            raise UserError(
                f"config.model {name!r}, config.data_dir {data_dir!r}: {error}"
            ) from None
        return posterior.model, posterior
    return {
        "eight_schools_noncentered": eight_schools_noncentered,
        "eight_schools_centered": eight_schools_centered,
        "breast_cancer": breast_cancer,
        "diabetes": diabetes,
    }[name], None


def eight_schools_noncentered() -> None:
    """y_j ~ N(theta_j, sigma_j^2), theta_j = mu + tau raw_j, raw_j ~ N(0, 1), mu ~ N(0, 5^2), tau ~
    half-Cauchy(5).
    """
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    raw = numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    theta = numpyro.deterministic("theta", mu + tau * raw)
    numpyro.sample(
        "y", dist.Normal(theta, jnp.asarray(STDERRS)).to_event(1), obs=jnp.asarray(EFFECTS)
    )


def eight_schools_centered() -> None:
    """The same with theta_j ~ N(mu, tau^2) sampled itself."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([8]).to_event(1))
    numpyro.sample(
        "y", dist.Normal(theta, jnp.asarray(STDERRS)).to_event(1), obs=jnp.asarray(EFFECTS)
    )


def breast_cancer() -> None:
    """y_i ~ Bernoulli(sigmoid(b + x_i' w)), 569 x 30 standardised measures, w_j ~ N(0, 1), b ~ N(0,
    5^2).
    """
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from sklearn.datasets import load_breast_cancer

    import vi_jax as vi

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0.0, 5.0))
    numpyro.sample(
        "y",
        vi.distributions.Bernoulli(b + jnp.asarray(x) @ w).to_event(1),
        obs=jnp.asarray(y, float),
    )


def diabetes() -> None:
    """y_i ~ N(b + x_i' w, sigma^2), 442 x 10 measures in standard units, w_j ~ N(0, 1), b ~ N(0,
    1), sigma ~ half-N(1).
    """
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean()) / y.std()
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(b + jnp.asarray(x) @ w, sigma).to_event(1), obs=jnp.asarray(y))
