"""Small tensor operations of the transformer. They know shapes and nothing of video.

| op | formula | shapes |
|---|---|---|
| `rms_norm` | x / rms(x) · weight | x `[..., C]`, weight `[C]` |
| `layer_norm_modulate` | layernorm(x) · (1 + scale) + shift | x `[B, L, C]`, scale and shift `[B, F, C]`, F divides L |
| `gate_residual` | x + gate · y | x and y `[B, L, C]`, gate `[B, F, C]`, F divides L |
| `rope_rotate` | (a, b) → (a cos − b sin, a sin + b cos) | x `[B, L, H, D]`, cos and sin `[B or 1, L, D/2]` |
"""

from .eager import gate_residual, layer_norm_modulate, rms_norm, rope_rotate

__all__ = ["gate_residual", "layer_norm_modulate", "rms_norm", "rope_rotate"]
