"""The rooms whose functions a config may name, and the fields that hold such names."""

from collections.abc import Mapping
from typing import Any

from experiments.choices import Room, Rooms
from experiments.cli import UserError
from experiments.overrides import Override

MODEL = Room(
    "model",
    "vi_jax.models",
    without=(
        *(
            "Column",
            "amortised",
            "architectures",
            "documents",
            "from_densities",
            "gated",
            "likelihoods",
            "networks",
        ),
        "priors",
    ),
)
DOCUMENTS = Room(
    "model of documents",
    "vi_jax.models.documents",
    names=("amortised_lda", "etm", "nvdm", "prodlda", "scholar"),
)
NETWORK = Room("network", "vi_jax.models.architectures", names=("conv", "gated_mlp", "mlp"))
ACTIVATION = Room(
    "activation",
    "jax.nn",
    names=(
        *("celu", "elu", "gelu", "hard_tanh", "identity", "leaky_relu", "mish", "relu", "selu"),
        *("sigmoid", "silu", "softplus", "tanh"),
    ),
    later=("x",),
    is_called=False,
)
LIKELIHOOD = Room("likelihood", "vi_jax.models.likelihoods", without=("Likelihood",))
FAMILY = Room(
    "family",
    "vi_jax.families",
    without=("mixture_log_prob",),
    later=("num_latents", "example"),
    is_called=False,
)
PRIOR = Room("prior", "vi_jax.models.priors")
OBJECTIVE = Room(
    "objective",
    "vi_jax.losses",
    names=(
        *("full_vb", "mcem", "mmd", "negative_bound", "negative_elbo", "total_correlation"),
        *("wake_sleep", "wake_wake"),
    ),
    later=("model", "name"),
    is_called=False,
)
BOUND = Room(
    "bound",
    "vi_jax.bounds",
    without=("cubo", "eubo", "sumo_stop", "tvo_schedule", "tvo_upper"),  # upper: not to be climbed
    later=("log_w",),
    is_called=False,
)
ESTIMATOR = Room(
    "estimator",
    "vi_jax.estimators",
    later=("key", "bound", "log_joint", "q", "num_samples"),
    is_called=False,
    open_names=("auto",),
)
OPTIMISER = Room(
    "optimiser",
    "optax",
    names=(
        *("adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "amsgrad"),
        *("lamb", "lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "rprop", "sgd"),
        "yogi",
    ),
)
SCHEDULE = Room(
    "schedule",
    "vi_jax.losses.schedules",
    names=("constant", "cosine", "cyclical_warmup", "linear", "linear_warmup"),
    takes_numbers=True,
)
METHOD = Room("method", "experiments.posteriors.methods")

ROOMS = Rooms(
    {
        "network": NETWORK,
        "encoder": NETWORK,
        "decoder": NETWORK,
        "activation": ACTIVATION,
        "link": ACTIVATION,
        "likelihood": LIKELIHOOD,
        "family": FAMILY,
        "prior": PRIOR,
        "bound": BOUND,
        "estimator": ESTIMATOR,
        "optimizer": OPTIMISER,
        "learning_rate": SCHEDULE,
        "beta": SCHEDULE,
    }
)
CHOICES = {"model": MODEL, "objective": OBJECTIVE, "optim": OPTIMISER}  # of a training
DOCUMENT_CHOICES = {**CHOICES, "model": DOCUMENTS}
POSTERIOR_CHOICES = {"method": METHOD}  # of a posterior, whose model is NumPyro's
# by the name that --list takes
LISTED = {
    room.kind: room
    for room in (
        *(MODEL, NETWORK, ACTIVATION, LIKELIHOOD, FAMILY, PRIOR, OBJECTIVE, BOUND, ESTIMATOR),
        *(OPTIMISER, SCHEDULE),
    )
}
LISTED_OF_DOCUMENTS = {**LISTED, "model": DOCUMENTS}
LISTED_OF_POSTERIORS = {METHOD.kind: METHOD}


def choices_of(config: Mapping[str, Any]) -> dict[str, Room]:
    """The top-level fields of a config that are choices."""
    if "objective" not in config:
        return POSTERIOR_CHOICES
    return DOCUMENT_CHOICES if is_of_documents(config) else CHOICES


def command_of(config: Mapping[str, Any]) -> str | None:
    """The command that runs a config, by the fields that it has; None where they do not tell."""
    if is_of_documents(config):
        return "documents"
    if "objective" in config:
        return "train"
    is_posterior = isinstance(config.get("model"), str) and not hasattr(config.get("data"), "keys")
    return "posterior" if is_posterior else None


def require_command(config: Mapping[str, Any], command: str) -> None:
    """Raises UserError where a config is one of another command; says of which."""
    wanted = command_of(config)
    if wanted is not None and wanted != command:
        raise UserError(
            f"this config is not one of experiments.{command}; run it with "
            f"python -m experiments.{wanted}."
        )


def is_of_documents(config: Mapping[str, Any]) -> bool:
    """Whether a config is one of experiments.documents: its data hold documents out."""
    data: Any = config.get("data")
    return hasattr(data, "keys") and "held_out" in data


# fields of version e705c06 and where they are now
RENAMED = {
    "bound": "objective.name=negative_bound and objective.bound",
    "estimator": "objective.estimator",
    "num_samples": "objective.num_samples",
    "family": "model.family",
    "model.hidden": "model.network.hidden",
    "model.activation": "model.network.activation",
    "model.sigma": "model.likelihood, such as gaussian_learned or dict(name='gaussian', sigma=0.1)",
    "model.sigma_init": "model.likelihood.sigma_init",
    "objective.warmup": "objective.beta, such as linear_warmup",
    "objective.warmup_steps": "objective.beta.num_steps",
    "objective.warmup_ramp": "objective.beta.ramp",
    "optim.schedule": "optim.learning_rate, such as cosine",
    "optim.lr_warmup_steps": "optim.learning_rate.warmup_steps",
    "optim.clip_norm": "train.clip_norm",
    "optim.ema": "train.ema",
}


def renamed(override: Override, config: dict[str, Any]) -> Override:
    """An override, unless its field is one of an older version.

    Raises:
      UserError: it is; says the new name.
    """
    is_known = _has(config, override.field)
    if override.field in RENAMED and "objective" in config and not is_known:
        raise UserError(f"--config.{override.field} is --config.{RENAMED[override.field]} now.")
    return override


def _has(config: Any, field: str) -> bool:
    for part in field.split("."):
        if not hasattr(config, "items") or part not in config:
            return False
        config = config[part]
    return True
