"""How fast vi_jax trains and starts, beside what one would write or take instead; see README.md in
this folder.
"""
