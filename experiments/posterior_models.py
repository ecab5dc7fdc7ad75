"""The NumPyro models that `experiments.posterior` knows by name; data embedded here or in
scikit-learn.
"""

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments import files
from experiments.beside import importable
from experiments.cli import UserError, suggest

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
        own = name.removeprefix(RECORDED)
        raise UserError(
            f"the model of this record is {own}, and a record runs no code: look at that file, and "
            f"name it yourself, --config.model={own}."
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
        model = _from_file(name.removeprefix(FILE))
        return functools.partial(model, **_arguments(model, name.rpartition(":")[2], data)), None
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


@contextlib.contextmanager
def its_errors(name: str) -> Iterator[None]:
    """Turns what fails inside the file of a model into a UserError that names the line.

    What `vi_jax` says of a model (TargetError, FloatingPointError) and what the machine says pass.
    """
    import jax

    from vi_jax.targets.target import TargetError

    path = Path(name.removeprefix(FILE).rpartition(":")[0])
    known = (UserError, TargetError, FloatingPointError, MemoryError, OSError, Warning)
    try:
        yield
    except (*known, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        places = traceback.extract_tb(error.__traceback__)
        inside = [place for place in places if Path(place.filename).resolve() == path.resolve()]
        if not name.startswith(FILE) or not inside:
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":.")
        raise UserError(f"{path}, line {inside[-1].lineno}: {said}.") from error


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


def _from_file(path_and_function: str) -> Callable[[], Any]:
    path, _, name = path_and_function.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path!r} is no Python file; config.model wants file:PATH.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    try:
        with importable(Path(path).parent):
            spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"{path} fails when it is imported: {type(error).__name__}: {error}"
        ) from error
    model = getattr(module, name, None)
    if not callable(model):
        functions = [n for n, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(
            f"{path} has no function {name!r}; it has "
            f"{', '.join(functions) or 'none'}{suggest(name, functions)}."
        )
    return model


def _arguments(model: Callable[..., Any], function: str, data: str) -> dict[str, Any]:
    """The arrays of an .npz by the names of a function's arguments; a single number is a Python
    one, fit to be a size.
    """
    arrays = _read(Path(data)) if data else {}
    parameters = inspect.signature(model).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [
        p.name for p in parameters if p.kind not in (*several, inspect.Parameter.POSITIONAL_ONLY)
    ]
    wanted = [
        p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in several
    ]
    missing = [name for name in wanted if name not in arrays or name not in names]
    takes = f"{function} takes {', '.join(names) or 'no arguments'}"
    if missing and not data:
        raise UserError(
            f"{takes}: give them by --config.data=FILE.npz, written by np.savez(FILE, "
            f"{missing[0]}=...)."
        )
    if missing:
        raise UserError(
            f"{takes}, by these names; {data} has no {', '.join(missing)}, it has "
            f"{', '.join(arrays) or 'nothing'}."
        )
    unexpected = [name for name in arrays if name not in names]
    if unexpected and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        raise UserError(
            f"{takes}; {data} also has {', '.join(unexpected)}{suggest(unexpected[0], names)}: "
            "leave it out."
        )
    return arrays


def _read(path: Path) -> dict[str, Any]:
    """Every array of an .npz; nothing is unpickled."""
    import jax.numpy as jnp

    from experiments.data.base import DataError
    from experiments.data.npz import open_npz, read_array

    try:
        with open_npz(path) as opened:
            arrays = {name: read_array(opened, name, path) for name in opened.files}
    except DataError as error:
        raise UserError(f"config.data: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise UserError(
                f"config.data: {path}: {name!r} is of {array.dtype}; a model's arguments are "
                "numbers."
            )
    return {
        name: jnp.asarray(array) if array.ndim else array.item() for name, array in arrays.items()
    }
