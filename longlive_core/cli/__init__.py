"""The command line: one file per command, over the same objects that ComfyUI uses."""
