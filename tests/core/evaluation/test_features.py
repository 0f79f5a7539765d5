"""The similarity of shots by a DINO or CLIP vision model: tiny random ones, saved by transformers as a user's are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from longlive.longlive_core.evaluation.colours import Floats, Frame
from longlive.longlive_core.evaluation.continuity import LIMIT, ShotScore, score_film
from longlive.longlive_core.evaluation.continuity_report import report_data, report_lines
from longlive.longlive_core.evaluation.features import FeaturesError, ImageFeatures, load_features
from longlive.longlive_core.evaluation.film_facts import SAMPLES, film_facts
from longlive.longlive_core.evaluation.references import References, references_of
from longlive.longlive_core.script import ShotScript
from safetensors.torch import load_file, save_file

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
SCRIPT = ShotScript.parse("Shot 1 (1 block): a @keep=place\nShot 2 (2 blocks): b\nShot 3 (1 block): c @recall=place\n")
PLAN = SCRIPT.plan(24, 8)
REFERENCES = references_of(SCRIPT, PLAN)


def save_dinov2(folder: Path) -> Path:
    torch.manual_seed(1)
    config = transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


def save_dinov3(folder: Path) -> Path:
    torch.manual_seed(2)
    transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VISION)).save_pretrained(folder)
    return folder


def save_clip_vision(folder: Path) -> Path:
    torch.manual_seed(3)
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """With its text encoder and the projections."""
    torch.manual_seed(4)
    text = {**SIZES, "intermediate_size": 32, "vocab_size": 50, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


SAVED = (save_dinov2, save_dinov3, save_clip_vision, save_clip)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> ImageFeatures:
    return load_features(str(save_dinov2(tmp_path_factory.mktemp("dinov2"))))


def pictures(count: int, seed: int = 0) -> list[Frame]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8))


def flat_film(colours: Sequence[int]) -> list[Frame]:
    """Each block in one grey, where no subject stands out."""
    counts = [block.video_frames for block in PLAN.blocks]
    return [
        np.full((40, 60, 3), grey, np.uint8) for grey, count in zip(colours, counts, strict=True) for _ in range(count)
    ]


@pytest.mark.parametrize("save", SAVED)
def test_a_saved_model_gives_unit_vectors(save: type, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """DINOv2, DINOv3, CLIP's vision model and the whole CLIP; the same each time, and with nothing on the terminal."""
    folder = save(tmp_path / "model")
    capfd.readouterr()
    embed, frames = load_features(str(folder)), pictures(3)
    assert capfd.readouterr() == ("", "")
    vectors = embed(frames)
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32 and embed.name == "model"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-4)
    np.testing.assert_array_equal(vectors, load_features(str(folder))(frames))


def test_the_whole_clip_and_its_vision_model_agree(tmp_path: Path) -> None:
    """The text encoder is left in the file, and none of the vision model's weights is."""
    whole = save_clip(tmp_path / "clip")
    transformers.CLIPVisionModel.from_pretrained(whole).save_pretrained(tmp_path / "vision")
    one, other = (load_features(str(tmp_path / name))(pictures(2)) for name in ("clip", "vision"))
    np.testing.assert_array_equal(one, other)


def test_embeddings_do_not_depend_on_the_batch(dinov2: ImageFeatures) -> None:
    """And no batch is larger than its limit, however many frames there are."""
    sizes = list[int]()

    def model(pixel_values: torch.Tensor) -> object:
        sizes.append(len(pixel_values))
        return dinov2.model(pixel_values=pixel_values)

    frames = pictures(7)
    whole = dinov2(frames)
    parts = replace(dinov2, model=model, batch=3)(frames)
    assert sizes == [3, 3, 1]
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_frames_are_normalised_as_the_model_wants_it(tmp_path: Path) -> None:
    """By preprocessor_config.json where there is one, else as its family is; CLIP's square has its own size."""
    embed = load_features(str(save_clip_vision(tmp_path)))
    assert embed.side == 32 and embed.mean.flatten().tolist() == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}')
    embed = load_features(str(tmp_path))
    assert embed.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3]) and embed.std.unique().tolist() == [0.5]


def test_equal_frames_have_similarity_one(dinov2: ImageFeatures) -> None:
    """Exactly, and others less; a shot is compared by its worst block, and only where it has a reference."""
    facts = film_facts(flat_film([40, 40, 40, 40]), PLAN.blocks, detector=False, embed=dinov2)
    assert [score.similarity for score in score_film(facts, PLAN, REFERENCES)] == [1.0, 1.0, 1.0]
    facts = film_facts(flat_film([40, 40, 200, 40]), PLAN.blocks, detector=False, embed=dinov2)
    first, second, third = (score.similarity for score in score_film(facts, PLAN, REFERENCES))
    assert first == third == 1.0 and second is not None and second < 1.0 - 1e-6
    bare = References((-1,), ())
    assert score_film(facts, PLAN, [bare] * 3)[0].similarity is None
    still = facts.with_stills({-1: np.full((20, 20, 3), 40, np.uint8)}, dinov2)
    assert score_film(still, PLAN, [bare] * 3)[0].similarity == pytest.approx(1.0, abs=1e-5)


def test_features_of_a_part_replace_its_blocks_only(dinov2: ImageFeatures) -> None:
    """As a version of a shot is compared in the film; frames are embedded block by block, few at a time."""
    counts = list[int]()

    def embed(frames: Sequence[Frame]) -> Floats:
        counts.append(len(frames))
        return dinov2(frames)

    film, other = flat_film([40, 40, 90, 40]), flat_film([40, 200, 90, 40])
    facts = film_facts(film, PLAN.blocks, detector=False, embed=embed)
    assert counts == [SAMPLES] * 4
    start = PLAN.blocks[1].video_start
    part = film_facts(other[start:], PLAN.blocks[1:], start, detector=False, embed=embed)
    joined = facts.with_part(part)
    assert list(part.features) == [1, 2, 3] and list(joined.features) == [0, 1, 2, 3]
    assert not np.array_equal(joined.features[1], facts.features[1])
    np.testing.assert_array_equal(joined.features[2], facts.features[2])


def vectors_of(angles: Sequence[float]) -> dict[int, Floats]:
    """Features of the blocks whose cosines with the first one are those of these angles."""
    return {i: np.array([np.cos(angle), np.sin(angle)], np.float32) for i, angle in enumerate(angles)}


def test_scores_take_it_only_where_identity_cannot_be_read() -> None:
    """In a shot that recalls something. Elsewhere the score is the same to the bit as without features."""
    flat = film_facts(flat_film([40, 40, 40, 40]), PLAN.blocks, detector=False)
    unlike = replace(flat, features=vectors_of([0, np.pi / 3, 0, np.pi / 3]))
    _, second, third = score_film(unlike, PLAN, REFERENCES)
    assert (second.similarity, third.similarity) == (pytest.approx(0.5, abs=1e-6), pytest.approx(0.5, abs=1e-6))
    assert not second.stands_in and second.score == score_film(flat, PLAN, REFERENCES)[1].score
    assert third.stands_in and third.scores["identity"] is None and "similarity" in third.counted
    assert third.score == min(third.counted.values())
    assert ShotScore(2, {"identity": None, "cut": 1.0}, 0.5, True).worst == "similarity"

    subject = [frame.copy() for frame in flat_film([40, 40, 40, 40])]
    for frame in subject:
        frame[12:28, 20:40] = (200, 30, 30)
    plain = film_facts(subject, PLAN.blocks, detector=False)
    seen = replace(plain, features=vectors_of([0, 1, 1, 1]))
    for score, without in zip(score_film(seen, PLAN, REFERENCES), score_film(plain, PLAN, REFERENCES), strict=True):
        assert not score.stands_in and score.scores == without.scores and score.score == without.score


def test_the_report_has_the_column_only_with_features() -> None:
    """And marks a figure that counts; the JSON has the model's name and the figure of every shot."""
    flat = film_facts(flat_film([40, 40, 40, 40]), PLAN.blocks, detector=False)
    plain = score_film(flat, PLAN, REFERENCES)
    lines = list(report_lines(plain, PLAN, REFERENCES, LIMIT))
    data = report_data("film.mp4", plain, REFERENCES, LIMIT, detector=False)
    assert "similarity" not in "".join(lines) and "similarity" not in json.dumps(data) and "features" not in data
    scores = score_film(replace(flat, features=vectors_of([0, 1, 1, 1])), PLAN, REFERENCES)
    lines = list(report_lines(scores, PLAN, REFERENCES, LIMIT))
    assert lines[0].endswith("cut  similarity")
    rows = {line.split()[0]: line.split()[-1] for line in lines[1:4]}
    assert rows == {"1": "1.00", "2": "0.54", "3": "0.54*"}
    fault = "shot 3: similarity: its frames look unlike those of shot 1, and no subject stands out by colour"
    assert fault in lines and not any(line.startswith("shot 2: similarity") for line in lines)
    data = report_data("film.mp4", scores, REFERENCES, LIMIT, detector=False, features="dinov2-small")
    assert data["features"] == "dinov2-small" and data["format"] == "longlive-continuity-1"
    assert [shot["similarity"] for shot in data["shots"]] == [1.0, 0.5403, 0.5403]
    assert [shot["similarity_counts"] for shot in data["shots"]] == [False, False, True]


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It, what is missing in it, and what to give instead; nothing is asked of the network."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network is used"))

    def refused(folder: Path | str, message: str) -> None:
        with pytest.raises(FeaturesError, match=message):
            load_features(str(folder))

    refused(
        "facebook/not-in-the-cache", "facebook/not-in-the-cache is no folder and is not in the .*nothing is downloaded"
    )
    refused(tmp_path / "none", "is no folder and is not in the Hugging Face cache")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, r"empty: config\.json is missing\. --features takes the folder of a DINOv2")
    for config, message in (
        ("{", r"config\.json is no JSON"),
        ("[]", r"config\.json is no JSON object"),
        (
            '{"model_type": "clip_text_model", "vocab_size": 9}',
            "'clip_text_model' is a text model: it cannot see frames",
        ),
        ('{"model_type": "siglip", "vision_config": {}}', "of type 'siglip' is not supported; supported are dinov2, "),
        ('{"image_size": 8}', "of type 'None' is not supported"),
    ):
        (empty / "config.json").write_text(config)
        refused(empty, message)
    folder = save_dinov2(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    lacks = {name: weight for name, weight in weights.items() if "layer.1.mlp" not in name}
    save_file(lacks, folder / "model.safetensors", {"format": "pt"})
    refused(folder, r"its file lacks 4 weights of the vision model, such as encoder\.layer\.1\.mlp")
    (folder / "model.safetensors").write_bytes(b"torn")
    refused(folder, r"model: its weights \(model\.safetensors\) cannot be read")
    (folder / "model.safetensors").unlink()
    refused(folder, r"model: its weights \(model\.safetensors\) cannot be read: .*no file named model\.safetensors")


def test_what_is_wrong_with_the_machine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers is absent or too old, the device is none, the weights are damaged."""
    folder = str(save_dinov2(tmp_path / "model"))
    with pytest.raises(FeaturesError, match="--device nowhere cannot be used"):
        load_features(folder, "nowhere")
    embed = load_features(folder)
    broken = replace(embed, mean=embed.mean * float("nan"))
    with pytest.raises(FeaturesError, match="model gives values that are not finite"):
        broken(pictures(1))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="4.20"))
        with pytest.raises(FeaturesError, match=r"transformers 4\.20 has no models of type 'dinov2'; pip install"):
            load_features(folder)
        patch.setitem(sys.modules, "transformers", None)
        with pytest.raises(FeaturesError, match="--features needs transformers, which is not installed: pip install"):
            load_features(folder)


def test_a_name_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's own tools leave it there; the report calls the model by this name."""
    cached = tmp_path / "models--someone--dino"
    save_dinov2(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network is used"))
    assert load_features("someone/dino").name == "someone/dino"


def test_transformers_is_imported_for_a_model_only() -> None:
    """Not by the report, nor by the command's help."""
    code = (
        "import sys\n"
        "from longlive.longlive_core.evaluation import continuity_report, features, film_facts\n"
        "from longlive.longlive_core.render import rank_versions\n"
        "from longlive.longlive_core.cli import check\n"
        "assert 'transformers' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
