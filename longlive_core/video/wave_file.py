"""Sound in WAVE files of 16-bit PCM."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch

from .audio import Audio


def write_wave(file: Path, audio: Audio) -> None:
    """Writes a sound. Raises OSError."""
    samples = (audio.waveform.clamp(-1, 1).T * 32_767).round().cpu().numpy().astype("<i2")
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(audio.rate)
        sound.writeframes(samples.tobytes())


def read_wave(file: Path) -> Audio:
    """Reads a sound that `write_wave` wrote. Raises OSError, and ValueError for another file."""
    try:
        with wave.open(str(file), "rb") as sound:
            channels, rate = sound.getnchannels(), sound.getframerate()
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file} cannot be read as sound ({error})") from error
    samples = samples[: len(samples) // channels * channels].reshape(-1, channels)
    return Audio(torch.from_numpy(samples.T.astype(np.float32) / 32_767).clamp(-1, 1), rate)
