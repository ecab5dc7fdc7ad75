"""One experiment, one file; ml_collections only."""
