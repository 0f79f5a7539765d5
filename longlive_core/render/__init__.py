"""Rendering of one film into one file: settings, job, and reuse of the film's previous file."""
