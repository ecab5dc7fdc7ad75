"""A run while it trains: its blocks of steps, and what it records of them."""
