"""VRAM: what a film takes on a card, planned before it starts."""
