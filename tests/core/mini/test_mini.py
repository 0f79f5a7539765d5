"""The embedded model travels as three files that say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import Mini, TextEncoder, load_mini
from longlive.longlive_core.training.captions import vocabulary
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mini")
    Mini.random(0, vocabulary()).save(path, torch.float32)
    return path


def test_saved_and_loaded_is_the_same_model(folder: Path) -> None:
    """A saved model has the same weights, configurations and vocabulary when it is loaded."""
    made, loaded = Mini.random(0, vocabulary()), load_mini(folder)
    for before, after in ((made.model, loaded.model), (made.text, loaded.text), (made.vae, loaded.vae)):
        assert before.state_dict().keys() == after.state_dict().keys()
        assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert loaded.model.config == made.model.config
    assert loaded.vae.config == made.vae.config
    assert loaded.text.vocabulary == made.text.vocabulary


def test_a_model_for_films_is_frozen(folder: Path) -> None:
    """Made or loaded, no part asks for gradients: oneDNN may choose other kernels, and so other bits, for one that
    does."""
    for mini in (Mini.random(0, vocabulary()), load_mini(folder)):
        for part in (mini.model, mini.text, mini.vae):
            assert not part.training and not any(weight.requires_grad for weight in part.parameters())


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "vae"])
def test_a_missing_truncated_or_foreign_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    """The error names the file that is missing, truncated or of another format."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / f"{name}.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{name}\.safetensors cannot be read"):
        load_mini(tmp_path)
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=rf"{name}\.safetensors has format None"):
        load_mini(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.safetensors is missing"):
        load_mini(tmp_path)


def test_padding_and_batching_do_not_change_a_prompt() -> None:
    """A prompt has the same embedding alone and in a batch with a longer one; its padding rows are zero."""
    encoder = TextEncoder(vocabulary()).requires_grad_(False).eval()
    alone = encoder.encode("a big red ring")
    together = encoder(["a big red ring", "the scene transitions it sways on the left against a plain navy wall"])
    assert torch.allclose(together[0, :4], alone, atol=1e-6)
    assert together[0, 4:].abs().max() == 0


def test_order_matters_case_and_punctuation_do_not() -> None:
    """The order of words changes the embedding; case and punctuation do not."""
    encoder = TextEncoder(vocabulary()).requires_grad_(False).eval()
    assert torch.equal(encoder.encode("A big, RED ring."), encoder.encode("a big red ring"))
    assert not torch.allclose(encoder.encode("red big a ring"), encoder.encode("a big red ring"), atol=1e-3)


def test_unknown_words_are_reported_and_harmless() -> None:
    """Unknown words are reported once each and encoded as finite values; long prompts are cut at `max_words`."""
    encoder = TextEncoder(vocabulary()).requires_grad_(False).eval()
    assert encoder.unknown_words("a zebra and a zebra, a yak") == ("zebra", "yak")
    assert torch.isfinite(encoder.encode("zebra")).all()
    assert encoder.encode("").shape == (1, 128)
    assert len(encoder.encode("red " * 500)) == encoder.max_words


def test_unknown_words_of_any_alphabet_are_reported() -> None:
    """The model drops letters that are not ASCII, and says so; what it knows is encoded as before."""
    encoder = TextEncoder(vocabulary()).requires_grad_(False).eval()
    assert encoder.unknown_words("一只狐狸 a big ring, Лиса café") == ("一只狐狸", "лиса", "café")
    assert torch.equal(encoder.encode("a big 红 ring"), encoder.encode("a big ring"))
