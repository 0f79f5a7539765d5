"""The system: scripts, model, memory, sampler, VAE. Knows nothing of ComfyUI and runs on a CPU."""
