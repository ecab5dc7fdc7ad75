"""Test scores of 434 children on what is known of their mothers (Gelman & Hill 2007, chapters 3 and
4).

y = X beta + N(0, sigma^2) with p(beta) = 1; sigma ~ half-Cauchy(2.5) in the first models, flat in
the others.
"""

from experiments.posteriordb.gaussian import columns
from experiments.posteriordb.regressions import flat_regression, half_cauchy_regression


def kidscore_momhs(kid_score, mom_hs):
    """score ~ N(beta_1 + beta_2 hs, sigma^2), hs: the mother finished high school."""
    half_cauchy_regression(columns(mom_hs), kid_score)


def kidscore_momiq(kid_score, mom_iq):
    """score ~ N(beta_1 + beta_2 iq, sigma^2), iq: the mother's."""
    half_cauchy_regression(columns(mom_iq), kid_score)


def kidscore_momhsiq(kid_score, mom_hs, mom_iq):
    """score ~ N(beta_1 + beta_2 hs + beta_3 iq, sigma^2)."""
    half_cauchy_regression(columns(mom_hs, mom_iq), kid_score)


def kidscore_interaction(kid_score, mom_hs, mom_iq):
    """score ~ N(beta_1 + beta_2 hs + beta_3 iq + beta_4 hs iq, sigma^2)."""
    half_cauchy_regression(columns(mom_hs, mom_iq, mom_hs * mom_iq), kid_score)


def kidscore_interaction_c(kid_score, mom_hs, mom_iq):
    """As `kidscore_interaction`, hs and iq less their means; sigma flat."""
    _interaction(kid_score, mom_hs - mom_hs.mean(), mom_iq - mom_iq.mean())


def kidscore_interaction_c2(kid_score, mom_hs, mom_iq):
    """As `kidscore_interaction`, with hs - 0.5 and iq - 100; sigma flat."""
    _interaction(kid_score, mom_hs - 0.5, mom_iq - 100.0)


def kidscore_interaction_z(kid_score, mom_hs, mom_iq):
    """As `kidscore_interaction`, hs and iq less their means over twice their standard deviations;
    sigma flat.
    """
    _interaction(kid_score, *((v - v.mean()) / (2.0 * v.std(ddof=1)) for v in (mom_hs, mom_iq)))


def kidscore_mom_work(kid_score, mom_work):
    """score ~ N(beta_1 + sum_{w=2}^4 beta_w [mom_work = w], sigma^2), four kinds of work; sigma
    flat.
    """
    flat_regression(columns(*(mom_work == kind for kind in (2, 3, 4))), kid_score)


def _interaction(kid_score, hs, iq):
    flat_regression(columns(hs, iq, hs * iq), kid_score)
