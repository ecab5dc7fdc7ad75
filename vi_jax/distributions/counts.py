"""Bernoulli and binomial distributions by their logits, with the right gradient at 0."""

import jax
import numpyro.distributions as dist
from jax.scipy.special import gammaln

Array = jax.Array


class Bernoulli(dist.BernoulliLogits):
    """Bernoulli by its logits l: log p(x) = x l - log(1 + e^l).

    Parts from numpyro's in its gradient at l = 0: x - sigmoid(l) = x - 1/2 there, where numpyro's
    clipped cross-entropy gives x - 1 or x (jax.numpy's derivatives of max and abs meet at the
    kink). A zero-initialised decoder starts exactly there. Values between 0 and 1 are read as the
    probability of a one: the expected log density under that coin.

    Args:
      logits: any shape; the batch shape.
    """

    def log_prob(self, value: Array) -> Array:
        """x l - log(1 + e^l), elementwise."""
        return value * self.logits - jax.nn.softplus(self.logits)


class Binomial(dist.BinomialLogits):
    """Binomial by its logits, with the gradient x - n sigmoid(l) at every logit, 0 included (see
    `Bernoulli`).
    """

    def log_prob(self, value: Array) -> Array:
        """log C(n, x) + x l - n log(1 + e^l), elementwise."""
        n = self.total_count
        log_choose = gammaln(n + 1.0) - gammaln(value + 1.0) - gammaln(n - value + 1.0)
        return log_choose + value * self.logits - n * jax.nn.softplus(self.logits)
