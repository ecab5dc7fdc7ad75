"""Posteriors of NumPyro models: the models and methods that configs name, and the fit."""
