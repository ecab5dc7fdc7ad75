"""Evaluations of a trained model, each in a file of its own, chosen by what the model can give.

An evaluation is made for a subject, and says in one line what the subject lacks where it cannot be.
It has a pure measure of an array of examples, compiled once; the numbers of it for summary.json;
its lines of the closing table; and its figures. `METERS` lists them in the order of the table.
"""

from experiments.evals import (
    codes,
    copying,
    disentanglement,
    elbo,
    labels,
    latents,
    likelihood,
    spikes,
)
from experiments.evals.base import Evaluation, Measures, Meter, Subject, make_meter

METERS = (elbo, labels, latents, codes, disentanglement, likelihood, spikes, copying)
# what most models lack, and no one misses
OPTIONAL = ("codes", "copying", "disentanglement", "labels", "likelihood", "spikes")

__all__ = ["METERS", "OPTIONAL", "Evaluation", "Measures", "Meter", "Subject", "make_meter"]
