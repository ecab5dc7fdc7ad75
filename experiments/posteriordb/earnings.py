"""Earnings and height of 1,192 adults (Gelman & Hill 2007, chapters 4 and 6): y = X beta + N(0,
sigma^2), flat priors.
"""

import numpy as np

from experiments.posteriordb.gaussian import columns
from experiments.posteriordb.regressions import flat_regression


def earn_height(earn, height):
    """earn ~ N(beta_1 + beta_2 height, sigma^2), in dollars and inches."""
    flat_regression(columns(height), earn)


def logearn_height(earn, height):
    """log earn ~ N(beta_1 + beta_2 height, sigma^2)."""
    flat_regression(columns(height), np.log(earn))


def log10earn_height(earn, height):
    """log10 earn ~ N(beta_1 + beta_2 height, sigma^2)."""
    flat_regression(columns(height), np.log10(earn))


def logearn_height_male(earn, height, male):
    """log earn ~ N(beta_1 + beta_2 height + beta_3 male, sigma^2)."""
    flat_regression(columns(height, male), np.log(earn))


def logearn_logheight_male(earn, height, male):
    """log earn ~ N(beta_1 + beta_2 log height + beta_3 male, sigma^2)."""
    flat_regression(columns(np.log(height), male), np.log(earn))


def logearn_interaction(earn, height, male):
    """log earn ~ N(beta_1 + beta_2 height + beta_3 male + beta_4 height male, sigma^2)."""
    flat_regression(columns(height, male, height * male), np.log(earn))


def logearn_interaction_z(earn, height, male):
    """As `logearn_interaction` with z = (height - mean) / sd in height's place."""
    z = (height - height.mean()) / height.std(ddof=1)
    flat_regression(columns(z, male, z * male), np.log(earn))
