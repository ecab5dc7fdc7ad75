"""What a config may say: names, ranges and what goes together, checked before anything slow is
imported.
"""

from typing import Any

from experiments.cli import UserError, suggest

CLOSED_FORM_KL = (
    "mean_field",
    "full_rank",
    "low_rank",
)  # families, by how their KL to the prior is had
KL_BY_DRAWS = (
    "rank_one_precision",
    "student_t",
    "mixture",
    "gaussian_markov_chain",
    "planar",
    "radial",
    "sylvester",
    "real_nvp",
    "maf",
    "iaf",
    "neural_spline",
)
CHOICES = {
    "bound": ("analytic_elbo", "elbo", "iwae"),
    "estimator": ("reparam",),
    "family": (*CLOSED_FORM_KL, *KL_BY_DRAWS),
    "precision": ("float32", "bfloat16"),
    "prng": ("threefry2x32", "rbg", "unsafe_rbg"),
    "data.binarisation": ("dynamic", "static", "none"),
    "model.network": ("mlp", "conv"),
    "model.activation": ("tanh", "relu", "gelu", "silu", "softplus"),
    "model.likelihood": ("bernoulli", "gaussian", "discretized_logistic", "categorical"),
    "objective.warmup": ("none", "linear", "cyclical"),
    "optim.name": ("adam", "adamw", "adagrad", "rmsprop", "sgd"),
    "optim.schedule": ("constant", "cosine", "linear"),
    "train.on_nonfinite": ("stop", "skip"),
    "train.loop": ("compiled", "stepwise"),
    "eval.split": ("test", "validation"),
}
SIGMAS = ("learned", "per_dimension", "optimal")
_POSITIVE = (
    "replicas",
    "num_samples",
    "model.num_latents",
    "train.batch_size",
    "train.num_steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_skipped",
    "eval.batch_size",
    "eval.num_samples",
    "eval.num_importance_samples",
    "optim.learning_rate",
    "model.sigma_init",
)
_NOT_NEGATIVE = (
    "objective.beta",
    "objective.warmup_steps",
    "objective.free_bits",
    "optim.lr_warmup_steps",
    "optim.weight_decay",
    "optim.clip_norm",
    "optim.ema",
    "data.device_limit_mb",
    "eval.active_threshold",
    "train.checkpoint_minutes",
)
_SEEDS = ("seed", "data.shuffle_seed", "data.static_seed")
_REALS = (
    "optim.learning_rate",
    "optim.weight_decay",
    "optim.clip_norm",
    "optim.ema",
    "model.sigma_init",
    "objective.beta",
    "objective.free_bits",
    "objective.warmup_ramp",
    "data.device_limit_mb",
    "eval.active_threshold",
    "train.checkpoint_minutes",
)
_TEXTS = ("name", "data.name", "data.data_dir", "data.train", "data.validation", "data.test")
_SWITCHES = ("train.keep_best",)


def validate(config: Any) -> None:
    """Raises UserError for the first thing in a config that cannot be meant."""
    from experiments.data import DataError, check_name

    for field, names in CHOICES.items():
        if get(config, field) not in names:
            raise _wrong(
                field,
                config,
                f"it can be {', '.join(names)}{suggest(str(get(config, field)), names)}",
            )
    for field in {
        *_POSITIVE,
        *_NOT_NEGATIVE,
        *_SEEDS,
        *_REALS,
    }:  # a config.json edited by hand may hold anything
        value = get(config, field)
        kinds = (int, float) if field in _REALS else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or abs(value) == float("inf"):
            raise _wrong(
                field, config, f"it has to be a {'finite' if float in kinds else 'whole'} number"
            )
    for field in _POSITIVE:
        if not get(config, field) > 0:
            raise _wrong(field, config, "it has to be greater than 0")
    for field in _NOT_NEGATIVE:
        if not get(config, field) >= 0:
            raise _wrong(field, config, "it has to be at least 0")
    for field in _TEXTS:
        if not isinstance(get(config, field), str):
            raise _wrong(field, config, "it has to be text")
    for field in _SWITCHES:
        if not isinstance(get(config, field), bool):
            raise _wrong(field, config, "it has to be True or False")
    for field in _SEEDS:
        if not 0 <= get(config, field) < 2**32:
            raise _wrong(field, config, "a seed has to be at least 0 and below 2^32")
    try:
        check_name(get(config, "data.name"))
    except DataError as error:
        raise UserError(f"config.data.name: {error}") from None
    _validate_sweep(config)
    _validate_mesh(config)
    _validate_model(config)
    _validate_training(config)


def parse_sigma(config: Any) -> str | float:
    """The field model.sigma: one of SIGMAS, or a positive number."""
    text = get(config, "model.sigma")
    if text in SIGMAS:
        return text
    try:
        sigma = float(text)
    except (TypeError, ValueError):
        sigma = 0.0
    if not 0 < sigma < float("inf"):
        raise _wrong(
            "model.sigma",
            config,
            f"it can be a number above 0, or {', '.join(SIGMAS)}{suggest(str(text), SIGMAS)}",
        )
    return sigma


def get(config: Any, field: str) -> Any:
    """The value of a dotted field."""
    for part in field.split("."):
        try:
            config = config[part]
        except (KeyError, TypeError):
            raise UserError(
                f"the config has no field {field}; configs/vae.py has all of them, with what "
                "they mean."
            ) from None
    return config


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """Dotted fields and their values, from nested dicts."""
    flat = {}
    for name, value in config.items():
        flat.update(
            flatten(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return flat


def _validate_model(config: Any) -> None:
    hidden = get(config, "model.hidden")
    if (
        not isinstance(hidden, tuple | list)
        or not hidden
        or not all(isinstance(width, int) and width > 0 for width in hidden)
    ):
        raise _wrong(
            "model.hidden", config, "it has to be whole numbers above 0, such as (500,) or (32,64)"
        )
    grey = config.data.binarisation == "none"
    likelihood = config.model.likelihood
    if likelihood in ("discretized_logistic", "categorical") and not grey:
        raise UserError(
            f"config.model.likelihood {likelihood!r} is of pixel levels; set "
            "config.data.binarisation=none."
        )
    if likelihood == "gaussian":
        if parse_sigma(config) == "optimal" and config.bound != "analytic_elbo":
            raise UserError(
                "config.model.sigma 'optimal' is the optimum of the ELBO; set "
                "config.bound=analytic_elbo, or learn sigma."
            )
        if not grey:
            raise UserError(
                "config.model.likelihood 'gaussian' is of grey levels; set "
                "config.data.binarisation=none."
            )
    if config.bound == "analytic_elbo" and config.family not in CLOSED_FORM_KL:
        raise UserError(
            "config.bound 'analytic_elbo' takes the KL in closed form, which "
            f"config.family={config.family!r} has not; "
            "set config.bound=elbo, which estimates it on the draws, or iwae."
        )
    if config.bound != "analytic_elbo":
        objective = config.objective
        if objective.beta != 1.0 or objective.free_bits or objective.warmup != "none":
            raise UserError(
                "beta, warm-up and free bits weigh the closed-form KL, which "
                f"config.bound={config.bound!r} has not; "
                "set config.bound=analytic_elbo or leave them at beta=1, warmup=none, free_bits=0."
            )
    if config.family != "mean_field" and config.objective.free_bits:
        raise UserError(
            "config.objective.free_bits are counted per latent dimension; they want "
            "config.family=mean_field."
        )


def _validate_sweep(config: Any) -> None:
    rates = get(config, "sweep.learning_rates")
    numbers = isinstance(rates, tuple | list) and all(
        isinstance(rate, int | float) and 0 < rate < float("inf") for rate in rates
    )
    if not numbers or len(set(rates)) < len(rates):
        raise _wrong(
            "sweep.learning_rates",
            config,
            "it has to be different numbers above 0, such as (1e-3,3e-3), or ()",
        )
    if (config.replicas > 1 or rates) and config.train.loop != "compiled":
        raise UserError(
            "config.replicas and config.sweep train in one program; they want "
            "config.train.loop=compiled."
        )


def _validate_mesh(config: Any) -> None:
    axes = ("mesh.data", "mesh.model")
    for field in axes:
        size = get(config, field)
        if not isinstance(size, int) or isinstance(size, bool) or not (size > 0 or size == -1):
            raise _wrong(
                field, config, "it has to be a number of devices, or -1, all that are left"
            )
    if all(get(config, field) == -1 for field in axes):
        raise UserError(
            "config.mesh.data and config.mesh.model are both -1; one of them may be, all devices "
            "that are left."
        )


def _validate_training(config: Any) -> None:
    for field in ("eval_every", "checkpoint_every"):
        if config.train[field] % config.train.log_every:
            raise _wrong(
                f"train.{field}",
                config,
                f"it has to be a multiple of config.train.log_every, {config.train.log_every}",
            )
    if config.objective.warmup != "none" and not config.objective.warmup_steps:
        raise _wrong("objective.warmup_steps", config, "a warm-up wants at least 1 step")
    if not 0.0 < config.objective.warmup_ramp <= 1.0:
        raise _wrong("objective.warmup_ramp", config, "it has to be above 0 and at most 1")
    if not config.optim.ema < 1.0:
        raise _wrong("optim.ema", config, "a decay has to be below 1")
    if config.optim.weight_decay and config.optim.name != "adamw":
        raise _wrong("optim.weight_decay", config, "only config.optim.name=adamw has it")
    if (
        config.optim.schedule != "constant"
        and config.optim.lr_warmup_steps >= config.train.num_steps
    ):
        raise _wrong(
            "optim.lr_warmup_steps",
            config,
            f"it has to be below config.train.num_steps, {config.train.num_steps}",
        )
    if config.eval.split == "validation" and not config.data.validation:
        raise UserError(
            "config.eval.split is 'validation' and config.data.validation is empty; name a split "
            "or evaluate on test."
        )


def _wrong(field: str, config: Any, wanted: str) -> UserError:
    value = " ".join(repr(get(config, field)).split())
    return UserError(f"config.{field} is {value}; {wanted}.")
