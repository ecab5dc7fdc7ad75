"""The pictures that a run leaves behind: numpy arrays and a path in, one PNG on disk, its path out.

Images are levels in [0, 1], [n, H, W] or [n, H, W, C] with C of 1 to 4, or volumes, of which the
middle slice is shown; what lies a little outside is clipped, and the caption says so. Vectors,
[n, D], are drawn as lines or as heat strips, and the title says so. No pyplot, no global state, and
no matplotlib before the first figure.
Columns of a table are drawn in the data's own units.
"""

from experiments.figures.columns import (
    Imputed,
    Reconstructed,
    imputed_columns,
    reconstructed_columns,
)
from experiments.figures.correlations import correlation_maps
from experiments.figures.counts import count_statistics
from experiments.figures.curves import learning_curves
from experiments.figures.filled import filled_images
from experiments.figures.latents import kl_per_dimension, latent_plane, pca_2d
from experiments.figures.replicas import replica_curves
from experiments.figures.sequences import (
    Panel,
    Shown,
    length_histograms,
    reconstructed_sequences,
    sampled_sequences,
)
from experiments.figures.sheets import (
    image_grid,
    interpolation,
    manifold,
    manifold_grid,
    reconstructions,
)
from experiments.figures.spikes import Trial, latent_paths, raster_and_rates, states_over_time

__all__ = [
    "Imputed",
    "Panel",
    "Reconstructed",
    "Shown",
    "Trial",
    "correlation_maps",
    "count_statistics",
    "filled_images",
    "image_grid",
    "imputed_columns",
    "interpolation",
    "kl_per_dimension",
    "latent_paths",
    "latent_plane",
    "learning_curves",
    "length_histograms",
    "manifold",
    "manifold_grid",
    "pca_2d",
    "raster_and_rates",
    "reconstructed_columns",
    "reconstructed_sequences",
    "reconstructions",
    "replica_curves",
    "sampled_sequences",
    "states_over_time",
]
