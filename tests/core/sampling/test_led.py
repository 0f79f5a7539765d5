"""Models that ranks cannot share are refused before any rank does anything."""

from __future__ import annotations

import pytest
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.sampling.led import check_shared


def test_a_model_that_ranks_cannot_share_is_refused() -> None:
    """The error names what each rank has too little of, or the amax over all tokens, and what to use instead."""
    model = Mini.random(0).model
    check_shared(model, (8, 8), 4)
    with pytest.raises(ValueError, match=r"8 ranks .* 6 heads and frames of 16 tokens: .*; the nearest is 4"):
        check_shared(model, (8, 8), 8)
    with pytest.raises(ValueError, match=r"4 ranks .* frames of 2 tokens: .*; the nearest is 2"):
        check_shared(model, (2, 4), 4)
    quantize_linears(model, "nvfp4", activations="nvfp4")
    check_shared(model, (8, 8), 1)
    with pytest.raises(ValueError, match=r"2 ranks: .* one amax over all tokens \(W4A4\), .*; use one rank"):
        check_shared(model, (8, 8), 2)
