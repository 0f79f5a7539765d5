"""Halo windows: what each rank encodes, and that its latent frames are those of the whole clip."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.vae import VAEConfig, WanVAE
from longlive.longlive_core.vae.halo import ENCODER_HALO, HaloWindow, halo_window


def test_windows_of_96_latent_frames_on_4_ranks() -> None:
    """Ranks whose halo begins in the middle of the film drop one latent frame more, the encoding of a lone frame."""
    assert [halo_window(96, 4, rank) for rank in range(4)] == [
        HaloWindow((0, 24), 0, (0, 93), 0),
        HaloWindow((24, 48), 0, (0, 189), 24),
        HaloWindow((48, 72), 20, (76, 285), 29),
        HaloWindow((72, 96), 44, (172, 381), 29),
    ]


@pytest.mark.slow
def test_ranks_encode_what_the_whole_clip_has() -> None:
    """With the halo of the encoder, each rank's latent frames equal those of the whole clip; with half they do not."""
    torch.manual_seed(0)
    config = VAEConfig(dim=4, dec_dim=4, latent_channels=4, dim_mult=(1, 2, 2, 2))
    vae = WanVAE(config).requires_grad_(False)
    video = torch.rand(1, 3, 237, 16, 16) * 2 - 1  # 60 latent frames
    whole = vae.encode(video)

    def encoded(halo: int) -> torch.Tensor:
        window = halo_window(60, 2, 1, halo)
        return vae.encode(video[:, :, slice(*window.video)])[:, :, window.drop :]

    expected = whole[:, :, 30:]
    torch.testing.assert_close(encoded(ENCODER_HALO), expected, rtol=0, atol=2e-6)
    assert float((encoded(4)[:, :, 0] - expected[:, :, 0]).abs().max()) > 2e-5


@pytest.mark.parametrize(("latents", "ranks", "rank"), [(10, 4, 0), (8, 4, 4), (0, 1, 0), (8, 4, -1)])
def test_uneven_shares_are_refused(latents: int, ranks: int, rank: int) -> None:
    """Latent frames that do not split evenly, and ranks that do not exist, raise an error."""
    with pytest.raises(ValueError, match="do not split evenly"):
        halo_window(latents, ranks, rank)
