"""Files of a posteriordb folder (Magnusson et al. 2025, https://github.com/stan-dev/posteriordb):
data, references.

Read as they are stored, JSON plain, gzipped or zipped; nothing is unpickled and nothing is fetched.
Where a folder has no reference draws in the layout of a clone, two small files beside
`posterior_database/` may stand in for them: `ref_moments.json` (posterior -> names, mean, sd) and
`ref_draws_thin1000_f32.npz` (posterior -> [1000, D]).
"""

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data.base import DataError
from vi_jax import files

CLONE = "git clone https://github.com/stan-dev/posteriordb"
MOMENTS = "ref_moments.json"
THINNED = "ref_draws_thin1000_f32.npz"
SUMMARIES = "reference_posteriors/summary_statistics"


class Reference(NamedTuple):
    """Reference parameters: names such as 'beta[1]', their means [D] and standard deviations
    [D].
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray


def folder(root: str | Path) -> Path:
    """The `posterior_database` folder of a clone, given the clone or that folder itself; raises
    DataError.
    """
    for candidate in (Path(root) / "posterior_database", Path(root)):
        if (candidate / "posteriors").is_dir():
            return candidate
    raise DataError(f"{root} holds no posterior_database/posteriors; {CLONE} and give its folder.")


def read_json(path: Path) -> Any:
    """The JSON in `path`, `path`.zip or `path`.gz; raises DataError where there is none."""
    value = _read_json(path)
    if value is None:
        raise DataError(f"{path}[.zip, .gz] does not exist; a complete copy comes with {CLONE}")
    return value


def read_posterior(name: str, root: str | Path) -> dict[str, Any]:
    """What the database says of a posterior: data_name, model_name, reference_posterior_name."""
    return read_json(folder(root) / "posteriors" / f"{name}.json")


def read_data(data_name: str, root: str | Path) -> dict[str, np.ndarray]:
    """The data of a model, numbers in arrays."""
    raw = read_json(folder(root) / "data" / "data" / f"{data_name}.json")
    return {key: np.asarray(value) for key, value in raw.items()}


def read_draws(name: str, root: str | Path) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Names and all reference draws [S, D], chain after chain; None where the folder has none."""
    reference = read_posterior(name, root).get("reference_posterior_name")
    chains = _read_json(
        folder(root) / "reference_posteriors" / "draws" / "draws" / f"{reference}.json"
    )
    if chains is None:
        return None
    names = tuple(chains[0])
    return names, np.concatenate(
        [np.stack([np.asarray(chain[key], float) for key in names], axis=1) for chain in chains]
    )


def read_thinned_draws(name: str, root: str | Path) -> np.ndarray | None:
    """A thousand reference draws [1000, D], or None where the folder has none."""
    path = folder(root).parent / THINNED
    if not path.is_file():
        return None
    with files.read_npz(path, follow=True) as arrays:
        return arrays[name].astype(float) if name in arrays else None


def read_reference(name: str, root: str | Path) -> Reference:
    """Reference moments: of the draws, else of `ref_moments.json`, else of the summary
    statistics.
    """
    if (found := read_draws(name, root)) is not None:
        names, draws = found
        return Reference(names, draws.mean(0), draws.std(0, ddof=1))
    moments = (_read_json(folder(root).parent / MOMENTS) or {}).get(name)
    if moments is not None:
        return Reference(
            tuple(moments["names"]), np.asarray(moments["mean"]), np.asarray(moments["sd"])
        )
    return _read_summaries(read_posterior(name, root)["reference_posterior_name"], root)


def _read_summaries(reference: str, root: str | Path) -> Reference:
    """Moments from the stored E[x] and E[x^2]; the standard deviation loses digits where |mean| >>
    sd.
    """
    first, second = (
        read_json(folder(root) / SUMMARIES / kind / kind / f"{reference}.json")
        for kind in ("mean_value", "mean_squared_value")
    )
    mean = np.asarray(first["mean_value"], float)
    return Reference(
        tuple(first["names"]),
        mean,
        np.sqrt(np.asarray(second["mean_squared_value"], float) - mean**2),
    )


def _read_json(path: Path) -> Any:
    if path.is_file():
        return json.loads(files.read_bytes(path, follow=True))
    if (zipped := path.with_name(path.name + ".zip")).is_file():
        with zipfile.ZipFile(io.BytesIO(files.read_bytes(zipped, follow=True))) as archive:
            return json.loads(archive.read(path.name))
    if (gzipped := path.with_name(path.name + ".gz")).is_file():
        return json.loads(gzip.decompress(files.read_bytes(gzipped, follow=True)))
    return None
