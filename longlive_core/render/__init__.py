"""One film into one file: its settings, its job, and what of an earlier file is reused."""
