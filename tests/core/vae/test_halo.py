"""Halo windows: what each rank encodes, and that its latent frames are those of the whole clip."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from longlive.longlive_core.vae import VAEConfig, WanVAE
from longlive.longlive_core.vae.halo import ENCODER_HALO, HaloWindow, balanced_windows, halo_window

from ..parallel.ranks import run_ranks

WORK = Path(__file__).with_name("encode_work.py")


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


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_a_clip_that_ranks_share_is_encoded_to_the_bit(tmp_path: Path, size: int) -> None:
    """Every rank gets the latents of the whole clip, of which the first rank alone has the frames."""
    torch.manual_seed(1)
    frames = torch.randint(256, (237, 16, 16, 3), dtype=torch.uint8)  # 60 latent frames
    ((whole, _),) = run_ranks(1, "encode", tmp_path, frames, ENCODER_HALO, file=WORK)
    results = run_ranks(size, "encode", tmp_path, frames, ENCODER_HALO, file=WORK)
    assert all(torch.equal(latents, whole) for latents, _ in results)
    counts = [count for _, count in results]
    assert max(counts) <= 1.1 * sum(counts) / size


@pytest.mark.slow
def test_a_shorter_halo_changes_the_first_latent_frames_of_a_rank(tmp_path: Path) -> None:
    """What a rank keeps begins with an error, which is that of a lost past, and ends without one."""
    torch.manual_seed(1)
    frames = torch.randint(256, (237, 16, 16, 3), dtype=torch.uint8)
    ((whole, _),) = run_ranks(1, "encode", tmp_path, frames, 8, file=WORK)
    latents, _ = run_ranks(2, "encode", tmp_path, frames, 8, file=WORK)[1]
    first = balanced_windows(60, 2, 8)[1].keep[0]
    assert torch.equal(latents[:, :, :first], whole[:, :, :first])
    assert not torch.equal(latents[:, :, first], whole[:, :, first])
    assert torch.equal(latents[:, :, first + 20 :], whole[:, :, first + 20 :])


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("latents", [32, 64, 96, 100, 384])
def test_no_rank_encodes_much_more_than_the_mean(latents: int, ranks: int) -> None:
    """Windows cover the clip in order, and the longest is at most a tenth above their mean."""
    windows = balanced_windows(latents, ranks)
    assert [window.keep[0] for window in windows[1:]] == [window.keep[1] for window in windows[:-1]]
    assert windows[0].keep[0] == 0 and windows[-1].keep[1] == latents
    longest, mean = max(window.frames for window in windows), sum(window.frames for window in windows) / ranks
    assert longest <= 1.1 * mean
    if latents % ranks == 0:
        assert longest <= max(halo_window(latents, ranks, rank).frames for rank in range(ranks))


def test_more_ranks_than_latent_frames_are_refused() -> None:
    """A clip of fewer latent frames than ranks has no share for each of them."""
    with pytest.raises(ValueError, match="3 latent frames cannot be shared by 4 ranks; use 3 ranks at most"):
        balanced_windows(3, 4)
