"""What every training config begins with: the fields that do not depend on the model.

No experiment by itself: configs/vae.py and its neighbours start from it. Every choice is a name, or
`dict(name=..., ...)` with the arguments of the function that the name stands for; docs/configs.md
lists the rooms that names come from.
"""

import difflib

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The shared fields, for the 8x8 digits that scikit-learn carries."""
    return ConfigDict(
        dict(
            name="base",
            seed=0,
            # runs side by side in one program, of the seeds seed, seed + 1, ...; each leaves a run
            # folder of its own
            replicas=1,
            # with replicas of every seed at each of these learning rates, such as (1e-3,3e-3), and
            # at each of these shares of bins that lfads hides, which the validation split chooses
            sweep=dict(learning_rates=(), coordinated_dropout=()),
            # float32 | bfloat16: of activations and products; parameters, densities and KL stay
            # float32
            precision="float32",
            # threefry2x32 | rbg | unsafe_rbg: the generator of a run's keys; docs/speed.md has the
            # cost
            prng="threefry2x32",
            # devices along each axis, -1: all that are left; parameters are cut over `model`
            mesh=dict(data=-1, model=1),
            data=digits(),
            model=dict(name="vae"),
            objective=dict(name="negative_elbo"),
            optim=dict(name="adam", learning_rate=dict(name="cosine", peak=3e-3, warmup_steps=100)),
            train=dict(
                batch_size=128,
                num_steps=4000,
                log_every=200,
                eval_every=400,  # a multiple of log_every
                checkpoint_every=1000,  # a multiple of log_every
                # save also when this long has passed since the last save; 0 is off
                checkpoint_minutes=0.0,
                keep_checkpoints=3,  # the last few
                # and the one with the best ELBO on eval.split; choose by the validation split, not
                # by the test
                keep_best=False,
                clip_norm=0.0,  # global norm of the gradient; 0 is off
                ema=0.998,  # decay of the averaged parameters that evaluation uses; 0 is off
                # at a loss or gradient that is not finite: stop | skip, which leaves the step out
                on_nonfinite="stop",
                # skip: steps of a run at most; it measures the gradient's norm at every step
                max_skipped=100,
                # compiled: blocks of steps in one program | stepwise: one program call a step
                loop="compiled",
            ),
            eval=dict(
                split="test",  # test | validation
                batch_size=256,
                num_samples=16,  # samples of z per example for the ELBO
                # K of the bound in the closing table; experiments.evaluate takes 5,000
                num_importance_samples=500,
                # Burda et al. 2016: a unit is active when Var_x E[z|x] is above this
                active_threshold=0.01,
            ),
        ),
        type_safe=False,  # a choice may be a name, a number or a group of fields
    )


def digits() -> dict:
    """8x8 handwritten digits, embedded in scikit-learn; pixel values 0..16 read as probabilities
    of a pixel being on.
    """
    return dict(
        # digits | mnist | fashion_mnist | binarized_mnist | breast_cancer | wine | oscillations |
        # photos | shapes | shapes_small | lorenz | rotations | tfds:NAME | npz:FILE | images:DIR |
        # csv:FILE | parquet:FILE | h5:FILE:KEY | spikes:FILE | FILE.py:FUNCTION
        name="digits",
        # where the files are, or are put when they are fetched; "" is the user's cache
        data_dir="",
        # SPLIT or SPLIT[a:b], in examples or per cent; `all` is shuffled by shuffle_seed first.
        # auto: the data set's own, or 80 / 10 / 10 % where there is one split; validation may be ""
        train="auto",
        validation="auto",
        test="auto",
        shuffle_seed=0,
        # images | table | sequences (arrays [N, T, D]) | auto: an array [N, D] that is neither
        # 8-bit nor in [0, 1] is a table, and what has lengths or `sequence` is sequences
        kind="auto",
        with_labels=False,  # examples are dictionaries of `image` and `label`
        # training rows that keep their label, as many of each class; 0: all (semi_supervised_vae)
        num_labels=0,
        label_seed=0,  # which of them
        label_copies=1,  # how often each of them stands among the training rows
        # dynamic (afresh each time) | static (by static_seed) | none (grey levels)
        binarisation="dynamic",
        static_seed=0,
        # of images (docs/images.md): a side such as 64, or height and width such as 64,48; (): as
        # they are
        size=(),
        fit="crop",  # crop | pad | stretch: how images of another shape are brought to `size`
        mode="auto",  # auto (grey where all are) | grey | colour
        # drop | keep (as a channel) | black, grey, white or #rrggbb, which images are laid on
        alpha="drop",
        # the numbers of arrays that are black and white: auto | unit | symmetric | WHITE |
        # BLACK:WHITE
        scale="auto",
        channels="auto",  # auto | first | last: the axis of an array that has them
        # of arrays of more than 8 bits, and floats: 8bit (256 levels) | full (65,536, for a
        # likelihood of reals)
        depth="8bit",
        device_limit_mb=2048,  # larger training sets stay in host memory and stream
        **table(),
    )


def table() -> dict:
    """The fields of `data` that say how a table is read (docs/data.md)."""
    return dict(
        # NAME=KIND with commas between, or KIND for all columns; a name may be a pattern, gene_*.
        # Kinds: gaussian, student_t, log_normal, poisson, negative_binomial,
        # zero_inflated_poisson, zero_inflated_negative_binomial, bernoulli, categorical, ordinal;
        # drop leaves a column out. What is not named is guessed from the values, aloud
        kinds="",
        positive="linear",  # log: positive reals by their logarithm | linear
        sentinel="",  # values that stand for a missing one, with commas between, such as -999
        id_column="",  # of the rows' names, which are no values
        label_column="",  # of classes, which figures show and the model does not see
        # total: the sum of a row's counts | a column | "" for none: the offset of counts
        exposure="",
        covariates="",  # columns that the model is given, with commas between
        # of sequences: the column that says which one a row is a step of, and the column that
        # orders its steps ("": as they stand in the file)
        sequence="",
        time="",
        # of spike times: the width of a bin, milliseconds; 0: the file's own
        bin_ms=0.0,
    )


def mnist() -> dict:
    """The fields of `data` for MNIST; its last 10,000 training images are held out."""
    return dict(name="mnist")


def check_variant(variant: str, variants: tuple[str, ...], file: str) -> None:
    """Raises ValueError where `file`, a config, has no such variant; says which there are."""
    if variant in variants:
        return
    close = difflib.get_close_matches(variant, variants, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"{file} has no variant {variant!r}{meant}; it has {', '.join(variants)}.")
