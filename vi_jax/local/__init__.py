"""Local latent variables: how p(theta) prod_n p(x_n, z_n | theta) is approximated a few rows at a
time.

`local_advi` is the method; `table`, `coupled_table` and `encoder` are its guides of the rows.
`vi_jax.methods` has these names too. What is approximated is a `LocalTarget` of `vi_jax.targets`
(`from_local_rows`, or a model whose subsampled plate holds latents); `vi.fit` runs it to a
`LocalResult` of `vi_jax.fitting`. Both stay where targets and fits are: `from_numpyro` gives the
one below this floor, and the loop of the other needs what is above it.
"""

from vi_jax.local.advi import LocalMethod, local_advi
from vi_jax.local.guide import BatchGuide, LocalGuide
from vi_jax.local.guides import LocalGuides, coupled_table, encoder, table

__all__ = [
    "BatchGuide",
    "LocalGuide",
    "LocalGuides",
    "LocalMethod",
    "coupled_table",
    "encoder",
    "local_advi",
    "table",
]
