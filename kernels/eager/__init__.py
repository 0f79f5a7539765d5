"""The operations in plain torch: the reference of every other backend, and what runs where there is no other."""

from .gate import gate_residual
from .norm import layer_norm_modulate, rms_norm
from .rope import rope_rotate

__all__ = ["gate_residual", "layer_norm_modulate", "rms_norm", "rope_rotate"]
