"""The variational auto-encoder of Kingma & Welling (2013) on images, one latent layer, one guide
per image.

    python -m experiments.train --config=configs/vae.py      # digits: about a minute on 2 cores
    python -m experiments.train --config=configs/vae.py:mnist --config.data.data_dir=IDX_FOLDER

Variants: digits (default), mnist, aevb, fashion_mnist, gaussian, conv.
"""

from ml_collections import ConfigDict

VARIANTS = ("digits", "mnist", "aevb", "fashion_mnist", "gaussian", "conv")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant; every number that a run depends on is here."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/vae.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
        )
    config = _digits()
    if variant != "digits":
        config.update(_VARIANTS[variant]())
    config.name = f"vae-{variant}"
    return config


def _digits() -> ConfigDict:
    """8x8 handwritten digits, embedded in scikit-learn; levels 0..16 read as probabilities of a
    pixel being on.
    """
    return ConfigDict(
        dict(
            name="vae-digits",
            seed=0,
            # runs side by side in one program, of the seeds seed, seed + 1, ...; each leaves a run
            # folder of its own
            replicas=1,
            # with replicas of every seed at each of these, such as (1e-3,3e-3)
            sweep=dict(learning_rates=()),
            bound="analytic_elbo",  # analytic_elbo (SGVB-B) | elbo (SGVB-A) | iwae
            estimator="reparam",
            num_samples=1,  # draws of z per example: L of the paper, K of IWAE
            # mean_field | full_rank | low_rank, with the KL in closed form; with bound elbo or iwae
            # also
            family="mean_field",
            # rank_one_precision | student_t | mixture | gaussian_markov_chain, and the flows
            # planar | radial | sylvester | real_nvp | maf | iaf | neural_spline
            # float32 | bfloat16: of activations and products; parameters, densities and KL stay
            # float32
            precision="float32",
            # threefry2x32 | rbg | unsafe_rbg: the generator of a run's keys; docs/speed.md has the
            # cost
            prng="threefry2x32",
            # devices along each axis, -1: all that are left; parameters are cut over `model`
            mesh=dict(data=-1, model=1),
            data=dict(
                # digits | mnist | fashion_mnist | binarized_mnist | tfds:NAME | npz:FILE |
                # images:DIR
                name="digits",
                # where the files are, or are put when they are fetched; "" is the user's cache
                data_dir="",
                # SPLIT or SPLIT[a:b], in examples or per cent; `all` is shuffled by shuffle_seed
                # first
                train="all[:1257]",
                validation="all[1257:1437]",
                test="all[1437:]",
                shuffle_seed=0,
                # dynamic (afresh each time) | static (by static_seed) | none (grey levels)
                binarisation="dynamic",
                static_seed=0,
                device_limit_mb=2048,  # larger training sets stay in host memory and stream
            ),
            model=dict(
                network="mlp",  # mlp | conv
                # widths from the image towards the latent; the decoder mirrors them
                hidden=(256, 256),
                activation="tanh",  # tanh | relu | gelu | silu | softplus
                num_latents=10,
                likelihood="bernoulli",  # bernoulli | gaussian | discretized_logistic | categorical
                sigma="learned",  # gaussian only: a number | learned | per_dimension | optimal
                # gaussian only: where a learned sigma starts, in units of x in [0, 1]
                sigma_init=0.1,
            ),
            objective=dict(
                beta=1.0,  # weight of the KL; anything but 1 is no bound of log p(x)
                warmup="none",  # none | linear | cyclical
                warmup_steps=0,  # linear: steps from 0 to beta; cyclical: steps per cycle
                warmup_ramp=0.5,  # cyclical: part of a cycle that rises
                free_bits=0.0,  # nats per latent dimension that cost nothing
            ),
            optim=dict(
                name="adam",  # adam | adamw | adagrad | rmsprop | sgd
                learning_rate=3e-3,
                schedule="cosine",  # constant | cosine | linear
                lr_warmup_steps=100,
                weight_decay=0.0,  # adamw only
                clip_norm=0.0,  # global norm of the gradient; 0 is off
                ema=0.998,  # decay of the averaged parameters that evaluation uses; 0 is off
            ),
            train=dict(
                batch_size=128,
                num_steps=4000,  # 400 epochs of 10 steps
                log_every=200,
                eval_every=400,  # a multiple of log_every
                checkpoint_every=1000,  # a multiple of log_every
                # save also when this long has passed since the last save; 0 is off
                checkpoint_minutes=0.0,
                keep_checkpoints=3,  # the last few
                # and the one with the best ELBO on eval.split; choose by the validation split, not
                # by the test
                keep_best=False,
                # at a loss or gradient that is not finite: stop | skip, which leaves the step out
                on_nonfinite="stop",
                # skip: steps of a run at most; it measures the gradient's norm at every step
                max_skipped=100,
                # compiled: blocks of steps in one program | stepwise: one program call a step
                loop="compiled",
            ),
            eval=dict(
                split="test",
                batch_size=256,
                num_samples=16,  # draws of z per example for the ELBO
                # K of the bound in the closing table; experiments.evaluate takes 5,000
                num_importance_samples=500,
                # Burda et al. 2016: a unit is active when Var_x E[z|x] is above this
                active_threshold=0.01,
            ),
        )
    )


def _mnist() -> dict:
    """784-500-20 as in Kingma & Welling (2013), trained with Adam, a cosine schedule and averaged
    parameters.
    """
    return dict(
        data=dict(name="mnist", train="train[:50000]", validation="train[50000:]", test="test"),
        model=dict(hidden=(500,), num_latents=20),
        optim=dict(learning_rate=3e-3, lr_warmup_steps=1000, ema=0.9995),
        train=dict(
            batch_size=256, num_steps=40_000, log_every=500, eval_every=2000, checkpoint_every=4000
        ),
        eval=dict(batch_size=1000, num_samples=1, num_importance_samples=100),
    )


def _aevb() -> dict:
    """Kingma & Welling (2013) as printed: Adagrad, batches of 100, one draw; compare with
    `mnist`.
    """
    config = _mnist()
    config.update(
        optim=dict(
            name="adagrad", learning_rate=0.02, schedule="constant", lr_warmup_steps=0, ema=0.0
        )
    )
    config["train"].update(
        batch_size=100, num_steps=100_000, log_every=1000, eval_every=5000, checkpoint_every=10_000
    )
    return config


def _fashion_mnist() -> dict:
    """Fashion-MNIST as grey levels under a discretised logistic: log p(x) is that of the 8-bit
    pixels.
    """
    config = _mnist()
    config["data"].update(name="fashion_mnist", binarisation="none")
    config["model"].update(likelihood="discretized_logistic")
    return config


def _gaussian() -> dict:
    """Grey digits under N(x | f(z), sigma^2 I) with sigma at its optimum each step (Rybkin et al.
    2021).

    An optimal sigma follows the training error down, so that a wide decoder overfits 1,257 digits:
    the widths are small.
    """
    return dict(
        data=dict(binarisation="none"),
        model=dict(hidden=(64,), num_latents=16, likelihood="gaussian", sigma="optimal"),
    )


def _conv() -> dict:
    """The same digits through a convolutional encoder and decoder, with a latent plane of two
    dimensions.
    """
    return dict(
        model=dict(network="conv", hidden=(16, 32), activation="gelu", num_latents=2),
        # XLA runs a convolution in a CPU loop on one thread
        train=dict(num_steps=2000, loop="stepwise"),
        eval=dict(num_importance_samples=100),
    )


_VARIANTS = {
    "mnist": _mnist,
    "aevb": _aevb,
    "fashion_mnist": _fashion_mnist,
    "gaussian": _gaussian,
    "conv": _conv,
}
