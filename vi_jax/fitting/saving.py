"""Results in folders: `result.save(folder)` and `vi.load_result(folder)`.

A folder holds `result.json`, strict JSON, and the arrays that it names in one .npz
(`files.write_document`): it is of the old result or of the new one, whenever a process is killed.
No pickle, and nothing of a folder is run.
"""

from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import files
from vi_jax._version import __version__
from vi_jax.fitting._codec import UnknownClass, decode, encode
from vi_jax.fitting._compile import traced_once
from vi_jax.fitting._coordinates import with_model
from vi_jax.fitting.local_result import LocalResult
from vi_jax.fitting.local_saving import described_local, local_values, nothing_of_local
from vi_jax.fitting.result import Result
from vi_jax.fitting.without_target import LoadedResult, described, nothing_of, shapes_of
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import Target

FORMAT = 1
DOCUMENT = "result.json"
WHAT = "a result of vi_jax"
# of the largest of those values, by the digits of the numbers
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}


def save_result(result: Result | LocalResult, folder: files.StrPath) -> None:
    """Writes a result into a folder, which is made where it is not there; an earlier result in it
    is replaced.

    Raises:
      OSError: it cannot be written; an earlier result is then there still.
    """
    arrays: dict[str, np.ndarray] = {}
    known = described_local(result) if isinstance(result, LocalResult) else described(result)
    document = {
        "what": WHAT,
        "format": FORMAT,
        "vi_jax": __version__,
        "is_local": isinstance(result, LocalResult),
        "summary": str(result).split("\n"),
        "target": encode(known, arrays),
        "result": encode(_saved_fields(result), arrays),
    }
    files.write_document(folder, DOCUMENT, document, arrays)


def load_result(folder: files.StrPath, target: Target | LocalTarget | None = None) -> Any:
    """A result that `result.save(folder)` has written.

    Without its target it answers all that needs no log density, with the same bits: moments,
    samples, resampled ones, diagnostics, `print`, ArviZ (without log likelihoods). Sites that only
    the model computes, deterministic ones, are known at the weighted samples, and so to `moments`
    and `resample`; `sample` needs the target for them, and for a guide that goes through its model
    ("non-centred" in the table). A result with local latent variables has its
    diagnostics.

    Args:
      folder: where it was saved.
      target: the one that was fitted, made anew; then `predictive`, `continue_with`, `details` and
        all else work as on the first day.

    Returns:
      A Result, or a LocalResult.

    Raises:
      ValueError: the folder holds no result, one that is damaged or of a newer vi_jax, or one of
        another target: of other sites or shapes, or of another log density.
      OSError: it cannot be read.
    """
    document = _read_document(folder)
    arrays = files.read_arrays(folder, document)
    try:
        known = decode(document["target"], arrays)
        saved = decode(document["result"], arrays)
        details = saved.pop("details")
        bare = _without_target(document, known, saved)
    except UnknownClass as error:
        raise ValueError(
            f"{folder} holds a result with {error}, which this environment has not: it was saved "
            f"by vi_jax {document['vi_jax']}; load it with the versions of then."
        ) from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{DOCUMENT} in {folder} is damaged ({error!r}); fit and save anew."
        ) from error
    result: Result | LocalResult = bare
    if target is not None:
        kind = LocalResult if isinstance(bare, LocalResult) else Result
        same = _same_target(folder, target, bare, known)
        if kind is Result:
            saved["guide"] = with_model(saved["guide"], same)
        result = kind(**saved, target=same)
    if details is not None:
        result.__dict__["details"] = details  # where a cached property keeps it
    return result


def _without_target(
    document: dict[str, Any], known: dict[str, Any], saved: dict[str, Any]
) -> LoadedResult | LocalResult:
    if document["is_local"]:
        return LocalResult(**saved, target=nothing_of_local(known))
    return LoadedResult(
        **saved,
        target=nothing_of(known),
        sites=known["sites"],
        known_moments=known["moments"],
        known=known,
    )


def _saved_fields(result: Result | LocalResult) -> dict[str, Any]:
    """All fields but the target, and the details where they were computed."""
    kind = LocalResult if isinstance(result, LocalResult) else Result
    names = [field.name for field in fields(kind) if field.name != "target"]
    saved = {name: getattr(result, name) for name in names}
    return saved | {"details": result.__dict__.get("details")}


def _read_document(folder: files.StrPath) -> dict[str, Any]:
    try:
        document = files.read_document(folder, DOCUMENT)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no saved result: there is no {DOCUMENT} in it; give the folder that "
            "result.save(folder) was given."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{DOCUMENT} in {folder} is damaged ({error}); fit and save anew."
        ) from None
    if document.get("what") != WHAT:
        raise ValueError(f"{DOCUMENT} in {folder} is not one that result.save(folder) writes.")
    number = document.get("format")
    if not isinstance(number, int) or number > FORMAT:
        raise ValueError(
            f"{folder} holds a result of format {number}, written by vi_jax "
            f"{document.get('vi_jax')}; this is vi_jax {__version__}, which reads formats up to "
            f"{FORMAT}: install that version."
        )
    return document


def _same_target(
    folder: files.StrPath, target: Any, bare: Result | LocalResult, known: dict[str, Any]
) -> Any:
    """The target for the result, once it is seen to be the one that was fitted.

    Raises:
      ValueError: it is another.
    """
    if type(target) is not type(bare.target):
        raise ValueError(
            f"load_result expects a {type(bare.target).__name__} of vi.targets, as was fitted; got "
            f"{type(target).__name__}."
        )
    u = jnp.asarray(known["u"])
    if not _has_sizes(target, u, known):
        raise ValueError(
            f"{folder} holds a result over {_listed(bare.target)}; the target is over "
            f"{_listed(target)}: give the one that was fitted."
        )
    if isinstance(target, LocalTarget):
        values = local_values(target, u)
    else:
        target = traced_once(target)
        values = np.asarray(jax.lax.map(target.log_density, u))
    saved = np.asarray(known["values"], np.float64)
    size = np.max(np.abs(saved), initial=1.0, where=np.isfinite(saved))
    tolerance = TOLERANCES.get(str(u.dtype), TOLERANCES["float32"]) * size
    if not np.allclose(values, saved, rtol=0.0, atol=tolerance, equal_nan=True):
        worst = int(np.argmax(np.nan_to_num(np.abs(values - saved), nan=np.inf)))
        raise ValueError(
            f"{folder} holds a result of another log density: at one of its samples it was "
            f"{saved[worst]:,.6g} nats, and the target's is {values[worst]:,.6g}; give the model "
            "and the data that were fitted."
        )
    return target


def _has_sizes(target: Any, u: Any, known: dict[str, Any]) -> bool:
    """Whether a target has the names, shapes and rows of the saved one."""
    if target.names != known["names"]:
        return False
    if isinstance(target, LocalTarget):
        sizes = ("local_names", "num_rows", "batch_size")
        return all(getattr(target, name) == known[name] for name in sizes)
    return shapes_of(target, u) == known["shapes"]


def _listed(target: Target | LocalTarget) -> str:
    names = target.names
    few = ", ".join(names[:5])
    rows = ""
    if isinstance(target, LocalTarget):
        rows = f" and {target.local_size:,} of each of {target.num_rows:,} rows"
    return f"{len(names):,} latents ({few}{', ...' if len(names) > 5 else ''}){rows}"
