"""Stages of a render (sampling, decoding, writing) in threads with bounded queues."""
