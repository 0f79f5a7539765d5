"""Claims as figures: a vision probe for the synthetic world, and what it measures on generated films."""
