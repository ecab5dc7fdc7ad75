"""Commands: train, evaluate, sample. Strings, files, flags, plots and checkpoints live here, never
in vi_jax.
"""

from experiments.startup import keep_warnings

keep_warnings()
