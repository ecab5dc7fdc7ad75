"""Families of guides: `Family(init(key) -> params, guide(params) -> q)`; sizes in the closure, arrays in the parameters.

One member, one file; the factory is called `family` there and by the file's name here. All-zero parameters are the neutral
member of each family.
"""

from vi_jax.families.full_rank import family as full_rank
from vi_jax.families.mean_field import family as mean_field

__all__ = ["full_rank", "mean_field"]
