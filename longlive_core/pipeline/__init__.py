"""Sampling, decoding and writing as stages in threads with bounded queues."""
