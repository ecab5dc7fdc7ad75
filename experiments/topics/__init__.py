"""Topic models as a command: the config, the fit, what is left in the run folder."""
