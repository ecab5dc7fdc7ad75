"""Commands: train, evaluate, sample. Strings, files, flags, plots and checkpoints live here, never
in vi_jax.
"""
