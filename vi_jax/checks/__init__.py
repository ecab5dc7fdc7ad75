"""The linter for an ELBO: `vi.check(key, log_joint, q)`.

`check` runs the checks, `FINDINGS` says what they find, `CHECKS` names them for `only=`. One file a
kind of check; `problem` holds what all of them are given, `report` what they return.
"""

from vi_jax.checks.check import CHECKS, FINDINGS, check
from vi_jax.checks.report import Finding, Report

__all__ = ["CHECKS", "FINDINGS", "Finding", "Report", "check"]
