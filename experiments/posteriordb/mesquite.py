"""Leaf weight of 46 mesquite bushes on their size (Gelman & Hill 2007, section 4.6): y = X beta +
N(0, sigma^2), flat priors.

canopy volume = diam1 diam2 canopy_height, canopy area = diam1 diam2, canopy shape = diam1 / diam2.
"""

import numpy as np

from experiments.posteriordb.gaussian import columns
from experiments.posteriordb.regressions import flat_regression


def mesquite(weight, diam1, diam2, canopy_height, total_height, density, group):
    """weight on diam1, diam2, canopy height, total height, density and group, in that order."""
    flat_regression(columns(diam1, diam2, canopy_height, total_height, density, group), weight)


def logmesquite(weight, diam1, diam2, canopy_height, total_height, density, group):
    """As `mesquite` in logs, the group as it is."""
    _log_regression(weight, diam1, diam2, canopy_height, total_height, density, group=group)


def logmesquite_logvolume(weight, diam1, diam2, canopy_height):
    """log weight on log volume."""
    _log_regression(weight, diam1 * diam2 * canopy_height)


def logmesquite_logva(weight, diam1, diam2, canopy_height, group):
    """log weight on log volume, log area and the group."""
    _log_regression(weight, diam1 * diam2 * canopy_height, diam1 * diam2, group=group)


def logmesquite_logvash(weight, diam1, diam2, canopy_height, total_height, group):
    """log weight on log volume, log area, log shape, log total height and the group."""
    _log_regression(
        weight,
        diam1 * diam2 * canopy_height,
        diam1 * diam2,
        diam1 / diam2,
        total_height,
        group=group,
    )


def logmesquite_logvas(weight, diam1, diam2, canopy_height, total_height, density, group):
    """As `logmesquite_logvash` with log density before the group."""
    volume = diam1 * diam2 * canopy_height
    area = diam1 * diam2
    shape = diam1 / diam2
    _log_regression(weight, volume, area, shape, total_height, density, group=group)


def _log_regression(weight, *sizes, group=None):
    plain = () if group is None else (group,)
    flat_regression(columns(*map(np.log, sizes), *plain), np.log(weight))
