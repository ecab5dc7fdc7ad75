"""One run: its folder, its checkpoints, its blocks of steps, and what it records of them."""
