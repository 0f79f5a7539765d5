"""Lazy films, iterated block by block and stored in memory or in a take; the command line and ComfyUI use both."""
