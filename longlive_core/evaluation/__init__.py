"""Measurements of generated films with a vision probe, and agreement with recorded runs of the reference."""
