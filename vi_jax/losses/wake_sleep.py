"""Wake-sleep and reweighted wake-sleep, for guides of any kind, discrete ones too."""

from typing import Any

import jax

from vi_jax import bounds
from vi_jax.losses.bound import densities_of, log_joint
from vi_jax.losses.info import Info, Loss
from vi_jax.types import Array, Model, Params, freeze, num_examples
from vi_jax.weights import draw


def wake_wake(model: Model, *, num_samples: int) -> Loss:
    """Reweighted wake-sleep, the guide updated awake (Bornschein & Bengio 2015, eq. 8 and 13; Le et
    al. 2019).

    Wake-theta: the model climbs IWAE at draws that are held fixed. Wake-phi: the guide descends
    KL(p(z|x) || q) by self-normalised weights, -sum_k wbar_k log q(z_k). No path through the draws:
    any guide, discrete ones too.

    Args:
      model: of one example, with densities and without an update of its own.
      num_samples: K, at least 2.

    Returns:
      A Loss whose value is minus IWAE_K; metrics `iwae` and `wake_phi`, the mean of -sum_k wbar_k
      log q(z_k), nats.

    Raises:
      ValueError: K < 2, or the model has no densities, has train_terms or updates parameters.
    """
    return _wake(model, num_samples, sleep=False)


def wake_sleep(model: Model, *, num_samples: int) -> Loss:
    """The wake-sleep algorithm: wake-theta as in `wake_wake`, and sleep-phi: the guide descends
    E_{p(x, z)}[-log q(z | x)] on as many samples of the model as the batch has examples, each with
    the context of one of them.

    One sample is wake-sleep as Hinton et al. (1995) have it, where the model climbs the ELBO; more
    are that of Bornschein & Bengio (2015). Arguments, result and errors as for `wake_wake`, but
    that K may be 1; the metric of the guide is `sleep_phi`.
    """
    return _wake(model, num_samples, sleep=True)


def _wake(model: Model, num_samples: int, *, sleep: bool) -> Loss:
    densities = densities_of(model, "wake-sleep")
    least = 1 if sleep else 2  # of one sample the weight is 1, whatever the guide
    if model.update is not None or model.train_terms is not None or num_samples < least:
        raise ValueError(
            f"wake-sleep expects num_samples of at least {least}, no update of parameters and no "
            f"train_terms; got {num_samples}, {model.update} and {model.train_terms}."
        )

    def awake(params: Params, key: Array, x: Any) -> tuple[Array, Array]:
        q = densities.guide(params, x)
        z = freeze(draw(key, q, num_samples))
        log_q = jax.vmap(q.log_prob)(z)
        log_w = jax.vmap(log_joint(model, params, x))(z) - freeze(log_q)
        return bounds.iwae(log_w), -(freeze(jax.nn.softmax(log_w)) * log_q).sum()

    def asleep(params: Params, key: Array, x: Any) -> Array:
        key_z, key_x = jax.random.split(key)
        z = freeze(densities.prior(params, x).sample(key_z))
        sample = freeze(densities.decode(params, x, z).sample(key_x))
        return -densities.guide(params, sample).log_prob(z)

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        del step
        size = num_examples(batch)
        key_wake, key_sleep = jax.random.split(key)
        in_batch = (None, 0, 0)
        iwae, guide = jax.vmap(awake, in_batch)(params, jax.random.split(key_wake, size), batch)
        if sleep:
            keys = jax.random.split(key_sleep, size)
            guide = jax.vmap(asleep, in_batch)(params, keys, batch)
        value = iwae.mean()
        pull = guide.mean()
        metrics = {"iwae": value, "sleep_phi" if sleep else "wake_phi": pull}
        return (pull - freeze(pull)) - value, Info(metrics, params)

    return loss
