"""What the templates and the blueprint hold; `make_workflows` has the real front-end build and save them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .run import Json

WAN = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
LONGLIVE = "https://huggingface.co/longlive-video/LongLive-2.0-5B-ComfyUI/resolve/main"
TINY = "https://huggingface.co/lightx2v/Autoencoders/resolve/main"


def _file(name: str, place: str, directory: str) -> dict[str, str]:
    return {"name": name, "url": f"{place}/{name}", "directory": directory}


MODEL_FILES = {
    "nvfp4": _file("longlive2_5b_nvfp4.safetensors", LONGLIVE, "diffusion_models"),
    "bf16": _file("longlive2_5b_ar_bf16.safetensors", LONGLIVE, "diffusion_models"),
    "lora": _file("longlive2_5b_dmd_lora.safetensors", LONGLIVE, "loras"),
    "umt5": _file("umt5_xxl_fp8_e4m3fn_scaled.safetensors", f"{WAN}/text_encoders", "text_encoders"),
    "vae": _file("wan2.2_vae.safetensors", f"{WAN}/vae", "vae"),
    "tiny": _file("lighttaew2_2.safetensors", TINY, "vae_approx"),
}


@dataclass(frozen=True)
class Template:
    """A workflow of one row of groups, or of several.

    groups: `title` (None: no box), `cell` [column, row] in the grid of groups, `columns` of nodes. links: [from,
    output, to, input] by node keys. frames: (title of the node with the film, frame) of its picture, `across` of them
    in a row; none where the film cannot be made here. app: (node key, widget) of what app mode shows, in order.
    app_output: key of the node whose film it shows.
    """

    name: str
    groups: list[Json]
    links: list[list[str]]
    frames: list[tuple[str, int]] = field(default_factory=list)
    across: int = 2
    app: tuple[tuple[str, str], ...] = ()
    app_output: str = ""

    def content(self) -> Json:
        return {"groups": self.groups, "links": self.links}


def node(key: str, kind: str, *, title: str | None = None, size: tuple[int, int] = (0, 0), **widgets: Any) -> Json:  # noqa: ANN401
    return {"key": key, "type": kind, "title": title, "size": size, "widgets": widgets}


def loader(key: str, kind: str, file: str, widget: str, **widgets: str) -> Json:
    """A node that loads one of MODEL_FILES."""
    model = MODEL_FILES[file]
    return node(key, kind, **{widget: model["name"]}, **widgets) | {"models": [model]}


def model_loader(file: str) -> Json:
    """LongLive Model Loader, with room for Nodes 2.0, which draws it taller."""
    return loader("model", "LongLiveModelLoader", file, "model_name") | {"size": [300, 150]}


def note(text: str, height: int = 420) -> Json:
    """The note, on the left of everything."""
    column = [node("note", "MarkdownNote", title="Note", size=(380, height), text=text)]
    return {"title": None, "cell": [0, 0], "columns": [column]}


def group(title: str, column: int, *columns: list[Json], row: int = 0) -> Json:
    return {"title": title, "cell": [column, row], "columns": list(columns)}


def shot_script(key: str, script: str, height: int = 800, title: str | None = None) -> Json:
    return node(key, "LongLiveShotScript", title=title, size=(480, height), script=script)


def encode(key: str) -> Json:
    return node(key, "LongLiveEncodeShots", size=(300, 90))


def sampler(key: str, width: int, height: int, seed: int, title: str | None = None, **widgets: object) -> Json:
    size = {"width": width, "height": height}
    return node(key, "LongLiveStreamingSampler", title=title, size=(340, 660)) | {
        "widgets": size | {"seed": seed, **widgets}
    }


def decode(key: str, prefix: str, title: str | None = None, size: tuple[int, int] = (400, 590)) -> Json:
    return node(key, "LongLiveAsyncDecode", title=title, size=size, filename_prefix=f"video/{prefix}")


def shot(key: str, title: str, prompt: str, seed: int, **widgets: object) -> Json:
    """One LongLive Shot of LongLive Mini's size."""
    size = {"width": 128, "height": 128}
    return node(key, "LongLiveShot", title=title, size=(340, 640)) | {
        "widgets": size | {"prompt": prompt, "seed": seed, **widgets}
    }


def text_encoder() -> Json:
    return loader("clip", "CLIPLoader", "umt5", "clip_name", type="wan")


def vae() -> Json:
    return loader("vae", "VAELoader", "vae", "vae_name")


def from_mini(*keys: str) -> list[list[str]]:
    """Links from `mini` to nodes whose keys begin so: `encode2`, `sampler2`, `shot2`, `extend`, `retake`, `decode2`."""
    links: list[list[str]] = []
    for key in keys:
        if key.startswith("encode"):
            links.append(["mini", "CLIP", key, "clip"])
        elif key.startswith("sampler"):
            links.append(["mini", "MODEL", key, "model"])
        elif key.startswith(("shot", "extend", "retake")):
            links += [["mini", "MODEL", key, "model"], ["mini", "CLIP", key, "clip"]]
            if key == "extend":
                links.append(["mini", "VAE", key, "vae"])
        else:
            links.append(["mini", "VAE", key, "vae"])
    return links


MINI_FILM = """\
# The world that LongLive Mini knows: circles, squares, triangles and rings.
hero: a big orange ring

Shot 1 (4s): {hero} sways on the left in front of a striped navy wall, the camera pans left
Shot 2 (4s): {hero} bobs in the middle against a plain wine wall
Shot 3 (4s): the hero circles at the top in front of a checked forest background
Shot 4 (4s): {hero} hops near the bottom in front of a plain black background
"""

MINI_OPENING = """\
hero: a big cyan ball

Shot 1 (4s): {hero} bobs on the left in front of a checked brown wall
"""

MINI_GOES_ON = """\
# The hero's looks come from the picture: no shot of this script describes them.
Shot 1 (4s): it bobs on the left in front of a checked brown wall
Shot 2 (4s): the hero sways in the middle against a plain navy wall
Shot 3 (4s): it circles at the top in front of a striped forest background
"""

MINI_MEMORY = """\
# Only shot 1 describes the hero: in later shots, its looks come from memory.
Shot 1 (4s): a big yellow square sways on the left in front of a striped navy wall
Shot 2 (4s): it bobs in the middle against a plain wine wall
Shot 3 (4s): the hero circles at the top in front of a checked forest background
Shot 4 (4s): the same hero rests on the right against a striped grey wall
Shot 5 (4s): it hops near the bottom in front of a plain black background
"""

MINI_STORYBOARD_SCRIPT = """\
hero: a big yellow ball

Shot 1 (4s): {hero} sways on the left in front of a striped navy wall
Shot 2 (4s): {hero} bobs in the middle against a plain wine wall
Shot 3 (4s): {hero} circles at the top in front of a checked forest background
Shot 4 (4s): {hero} hops near the bottom in front of a plain grey background
"""

MINI_TAKE_SCRIPT = """\
hero: a big cyan ring

Shot 1 (1.33s): {hero} sways on the left in front of a striped navy wall
Shot 2 (1.33s): {hero} bobs in the middle against a plain wine wall
Shot 3 (1.33s): {hero} circles at the top in front of a checked forest background
"""

MINI_HERO_SCRIPT = """\
Shot 1 (2 blocks): a big yellow square rests in the middle against a plain navy wall
"""

MINI_RECALL_SCRIPT = """\
# No shot of this script describes the hero: its looks come from the other film.
Shot 1 (4s) @recall=mini-hero: it bobs on the left against a plain wine wall
Shot 2 (4s) @recall=mini-hero: it rests on the right against a checked forest wall
"""

MINI_AGAIN = "{hero} hops near the bottom in front of a plain grey wall"

MINI_SHOTS = (
    "a big yellow square sways on the left in front of a striped navy wall",
    "a big yellow square bobs in the middle against a plain wine wall",
    "a big yellow square circles at the top in front of a checked forest background",
    "a big yellow square hops near the bottom in front of a plain black background",
)

MINI_CLIP = "a big green ring sways on the left in front of a striped navy wall"
MINI_AFTER = "the hero bobs in the middle against a plain wine wall"

RETAKE_NOTE = """\
## LongLive Mini: retake a shot

Press **Run**. No download, no GPU.

**Expect** a film of four shots, 16 s. Each *LongLive Shot* shows its own progress and plays its newest block.

Then change the *prompt* or *seed* of shot 3 and press **Run** again: shots 1 and 2 stay identical, bit for bit; only \
shots 3 and 4 are rendered again. A cancelled film continues the same way.

Mini knows the colours *red, orange, yellow, green, cyan, blue, purple, white*, the walls *black, navy, forest, wine, \
brown, grey* and the places *left, right, top, bottom, middle*.

To add a shot, copy the last one: connect *STATE* to its *state*, and its *STREAM* to *LongLive Async Decode*.
"""

TAKE_NOTE = """\
## LongLive Mini: a take and a retake

Press **Run**. No download, no GPU.

*LongLive Save Take* stores every finished block in a folder of the output folder, *takes/LongLive_mini_00001.take*. \
After a crash, press **Run** again: the film continues with the next block.

*LongLive Retake* renders shot 2 with another *prompt* and *seed*; shots 1 and 3 stay unchanged (*keep*). The take \
stores every version.

**Expect** two films of 4 s that differ in shot 2 only.

Then change *shot*, *seed* or *prompt* of the retake and run again: only that shot is rendered. With *ripple*, the \
later shots are rendered too, so that they follow from it. In another workflow, *LongLive Load Take* loads the film.
"""

CAST_NOTE = """\
## LongLive Mini: a hero in another film

Press **Run**. No download, no GPU.

*LongLive Save Cast* saves a block of the left film as *cast/mini-hero.cast.safetensors* in the input folder. Both \
shots of the right film recall it with *@recall=mini-hero*.

**Expect** a film of 8 s with a yellow square, which its script never names. Take *@recall=mini-hero* out of the \
shots, and the hero is white and has no clear shape.

In other workflows *LongLive Cast* loads the file, or the line *cast: mini-hero.cast.safetensors* above the first shot.
"""

STORYBOARD_NOTE = """\
## LongLive Mini: a storyboard, then the film

No download, no GPU.

1. Press **Storyboard** below the script: a still of each of the four shots, on its card, a third of the work.
2. Accept a still (A), reroll it (D) or edit its text (Enter) and press **Storyboard** again: only that still is made.
3. Press **Make the film**, or **Run**: a film of 16 s, whose shots begin with exactly these stills.

Without the strip, **Run** makes both: *LongLive Storyboard* shows the stills before the film begins. With the \
button, a film needs no such node.
"""

EXTEND_NOTE = """\
## LongLive Mini: extend a video

Press **Run**. No download, no GPU.

The first group renders a video of 4 s and reads its file, as an example of any video. *LongLive Extend Video* encodes \
it, and two shots continue it: first the same scene (*cut* off, the same prompt), then a cut to a shot that only says \
*the hero*.

**Expect** two files: the video, and a film of 12 s that begins with it.

For your own video, replace the group *A video* with ComfyUI's *Load Video*, and describe the video in *prompt*. It \
keeps its speed at any frame rate, and its sound begins the film. Mini needs a video of its world; the same graph \
works with LongLive 5B and any video.
"""

KEEPER = """\
style: cinematic 35mm film, anamorphic lens, soft overcast light, muted teal and amber, fine grain
hero: an old lighthouse keeper with a short white beard, a navy wool coat and a yellow oilskin hat

Shot 1 (5.3s): Wide shot of a white lighthouse on a black cliff at dawn. {hero} climbs the worn stone steps towards \
its door, his coat pulled by the wind, while long waves break far below. The camera cranes up slowly.
Shot 2 (5.3s): Medium shot inside the spiral stairwell. {hero} climbs past a small round window, one hand on the iron \
rail, a brass lantern swinging in the other. Warm lantern light slides over the brick. The camera follows.
Shot 3 (4s): Close-up of the face of {hero} as he lights the great lamp. Amber light blooms through the glass prisms \
and crosses his eyes. Shallow depth of field, the camera holds still.
Shot 4 (5.3s): Over the shoulder of {hero} at the gallery rail. Far out, a small fishing boat with a red sail turns \
towards the harbour through rain. He raises the lantern in greeting. The camera pushes in gently.
Shot 5 (5.3s): Wide aerial shot at dusk. {hero} stands small on the lit gallery while the beam of the lamp sweeps \
over the sea, and the camera circles away.
"""

GARDENER = """\
style: cinematic science fiction, 65mm film, natural practical light, rich greens against white panels, subtle haze
hero: a young botanist with curly auburn hair, round glasses and a sage green jumpsuit

Shot 1 (5.3s): Wide shot of a glass greenhouse on a space station, rows of ferns under warm lamps, the blue earth \
turning behind the panes. {hero} walks between the beds towards the camera, touching the leaves. Slow dolly back.
Shot 2 (5.3s): Medium close-up. {hero} kneels and parts the soil around a seedling with both hands; a drop of water \
runs down a leaf. Shallow depth of field, the camera drifts left.
Shot 3 (4s): Close-up of {hero} from the side as the lamps flicker and turn red. She looks up, the red light in her \
glasses. The camera holds still.
Shot 4 (5.3s): Tracking shot. {hero} runs down a white corridor with the potted seedling held to her chest, emergency \
lights passing over her. The camera runs beside her.
Shot 5 (5.3s): Wide shot, calm again. {hero} sits on the floor by a round window with the seedling in her lap, and \
sunrise comes over the rim of the earth. The camera pulls back slowly.
"""

DRAWING = """\
# Shot 1 begins with the picture: describe what it shows. This text describes ComfyUI's example.png.
style: a child's felt-pen drawing come to life, flat bright colours, thick uneven lines, playful hand-made animation
hero: a smiling girl with big yellow hair in two pointed tufts, blue button eyes and a long pink dress

Shot 1 (4s): {hero} stands on a round green hill under a blue sky with two white clouds. She blinks, waves with both \
arms and the tufts of her hair bounce. The camera holds still.
Shot 2 (5.3s): Medium shot. {hero} skips down the green hill, her dress swinging, while paper flowers pop up behind \
her steps. The camera follows from the side.
Shot 3 (4s): Close-up. {hero} looks up in wonder as a huge orange balloon drifts into view and its string tickles \
her nose. The camera tilts up.
Shot 4 (5.3s): Wide shot. {hero} floats over crayon rooftops and a winding blue river, holding the balloon with one \
hand. The camera drifts with her through the clouds.
"""

TRAIN_SCRIPT = """\
Shot 1 (2.7s): a big lime cross sways on the left in front of a striped navy wall
Shot 2 (2.7s): the hero circles at the top in front of a checked forest background
"""

TRAIN_NOTE = """\
## Train a LoRA on your own videos

1. Make the folder *my_clips* in ComfyUI's *input* folder. Put videos of 2 to 10 seconds into it, and beside each a \
text file of the same name that says what it shows: *fox.mp4*, *fox.txt*. Press **R**, and pick the folder in *data*.
2. `pip install peft` in ComfyUI's Python, once.
3. Press **Run**.

**Expect** the loss, its curve and every 50 steps a sample film on *LongLive Train LoRA*, then a film with the LoRA. \
You can cancel at any time; **Run** goes on from the last step.

This is LongLive Mini, which learns in minutes without a GPU, but only what fits 128x128 pixels and its small world. \
For LongLive 5B connect *LongLive Model Loader*, *Load CLIP* (umt5-xxl, type wan) and *Load VAE* (wan2.2_vae), and set \
*learning_rate* to 0.0001.

The help page of *LongLive Train LoRA* says what videos and captions work.
"""

MEMORY_NOTE = """\
## LongLive Mini: memory on and off

Press **Run**. No download, no GPU.

Both films have the same script and *seed*. In the upper one, the first block of the film (*global_sink* 8) and of the \
current shot (*shot_sink*) stay in memory. In the lower one, a block attends only to the block before it (*window* 16, \
*global_sink* 0).

**Expect** two films of 20 s. In the upper one the hero stays big to the end. In the lower one its looks pass from \
block to block: the colour survives, the size shrinks a little by the last shot. The difference is small, because Mini \
is a small model; neither film preserves the corners of the square.
"""

NVFP4_NOTE = """\
## LongLive 5B NVFP4: five shots, 832x480

1. Get the files that ComfyUI lists as missing when this opens.
2. Write your script: `style:` is added to every shot, `{hero}` is replaced by the text after `hero:`.
3. Press **Run**.

**Expect** a film of about 25 s. The sampler plays each finished block; *LongLive Async Decode* writes the file while \
the next block is sampled. The file can be played even if you cancel.

The settings are for cards of 12 to 16 GB: *kv_format* is nvfp4. If memory is still short, set *window* to 24.

*Preview VAE* only sharpens the preview: delete that node if you do not have its file.
"""

LORA_NOTE = """\
## LongLive 5B bf16 + DMD LoRA: five shots, 1280x704

1. Get the files that ComfyUI lists as missing when this opens.
2. Press **Run**.

**Expect** a film of about 25 s, and a report of the layers applied on the LoRA node.

With the LoRA, 4 *steps* are enough; without it the model needs many more, and *guidance* above 1.

*LongLive Sink Memory* shows the memory that its window needs; 1280x704 in bf16 is for cards of 32 GB and more. On \
smaller cards use 832x480 or the NVFP4 template.
"""

IMAGE_NOTE = """\
## LongLive 5B: image to film

1. Get the files that ComfyUI lists as missing when this opens.
2. Choose your picture in *Load Image*; it is cropped to 832x480.
3. Describe it in `hero:` and in shot 1; the text here describes ComfyUI's example.png.
4. Press **Run**.

**Expect** a film of about 19 s whose first frame is your picture. Later shots show the same hero in other scenes.
"""


def five_b_links(model: str = "model") -> list[list[str]]:
    """What the three 5B films have in common; `model` is the key of the node that the sampler takes it from."""
    return [
        ["clip", "CLIP", "encode", "clip"],
        ["script", "SHOTS", "encode", "shots"],
        [model, "MODEL", "sampler", "model"],
        ["encode", "SHOT_CONDITIONING", "sampler", "conditioning"],
        ["memory", "MEMORY", "sampler", "memory"],
        ["sampler", "STREAM", "decode", "stream"],
        ["vae", "VAE", "decode", "vae"],
    ]


# What app mode shows of a film of one script: the film where it is seen without scrolling.
APP = (
    ("script", "script"),
    ("script", "longlive_strip"),
    ("decode", "longlive_film"),
    ("sampler", "seed"),
    ("sampler", "width"),
    ("sampler", "height"),
)

MINI_TEXT_TO_FILM = Template(
    "LongLive 01 Text to film (Mini)",
    [
        note(
            "## LongLive Mini: text to film\n\nPress **Run**. No download, no GPU.\n\n**Expect** a film of 16 s at "
            "128x128 in about half a minute. The sampler plays each finished block; *LongLive Async Decode* writes the "
            "file while the next block is sampled.\n\nThen change a wall to *black, navy, forest, wine, brown* or "
            "*grey*, or the hero's colour to *red, orange, yellow, green, cyan, blue, purple* or *white*, and run "
            "again. Mini is the whole system at toy size: it knows only the words of its small world."
        ),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group("Script", 2, [shot_script("script", MINI_FILM), encode("encode")]),
        group("Film", 3, [node("memory", "LongLiveSinkMemory"), sampler("sampler", 128, 128, 2)]),
        group("File", 4, [decode("decode", "LongLive_mini", "Film")]),
    ],
    [
        *from_mini("encode", "sampler", "decode"),
        ["script", "SHOTS", "encode", "shots"],
        ["encode", "SHOT_CONDITIONING", "sampler", "conditioning"],
        ["memory", "MEMORY", "sampler", "memory"],
        ["sampler", "STREAM", "decode", "stream"],
    ],
    [("Film", 40), ("Film", 140), ("Film", 236), ("Film", 340)],
    app=APP,
    app_output="decode",
)

MINI_IMAGE_TO_FILM = Template(
    "LongLive 02 Image to film (Mini)",
    [
        note(
            "## LongLive Mini: image to film\n\nPress **Run**. No download, no GPU.\n\nThe first group "
            "renders a film of 4 s. *LongLive Stream to Images* returns its last frame (*first_frame* -1, "
            "*frame_count* 1), which is the *start_image* of a second film.\n\n**Expect** a film of 12 s that begins "
            "with the picture and shows its hero, although no shot of the second script describes it.\n\nAny "
            "128x128 picture of Mini's world works as a start: replace the first film with *Load Image*."
        ),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group("First film", 2, [shot_script("script1", MINI_OPENING, 620), encode("encode1")]),
        group(
            "Its last frame",
            3,
            [
                sampler("sampler1", 128, 128, 1, "First sampler"),
                node("images", "LongLiveStreamToImages", first_frame=-1, frame_count=1),
                node("still", "PreviewImage", title="Start image", size=(340, 300)),
            ],
        ),
        group("Script of the second film", 4, [shot_script("script2", MINI_GOES_ON), encode("encode2")]),
        group("Second film", 5, [sampler("sampler2", 128, 128, 1, "Second sampler")]),
        group("File", 6, [decode("decode2", "LongLive_mini_image", "Film")]),
    ],
    [
        *from_mini("encode1", "sampler1", "encode2", "sampler2", "images", "decode2"),
        ["mini", "VAE", "sampler2", "vae"],
        ["script1", "SHOTS", "encode1", "shots"],
        ["encode1", "SHOT_CONDITIONING", "sampler1", "conditioning"],
        ["sampler1", "STREAM", "images", "stream"],
        ["images", "IMAGE", "still", "images"],
        ["images", "IMAGE", "sampler2", "start_image"],
        ["script2", "SHOTS", "encode2", "shots"],
        ["encode2", "SHOT_CONDITIONING", "sampler2", "conditioning"],
        ["sampler2", "STREAM", "decode2", "stream"],
    ],
    [("Film", 0), ("Film", 50), ("Film", 150), ("Film", 250)],
)

MINI_MEMORY_ON_AND_OFF = Template(
    "LongLive 07 Memory on and off (Mini)",
    [
        note(MEMORY_NOTE),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group("Script", 2, [shot_script("script", MINI_MEMORY), encode("encode")]),
        group(
            "Memory on",
            3,
            [node("memory1", "LongLiveSinkMemory", title="Global sink and shot sink")],
            [sampler("sampler1", 128, 128, 2, "Sampler, memory on")],
            [decode("decode1", "LongLive_mini_memory_on", "Memory on")],
        ),
        group(
            "Memory off",
            3,
            [node("memory2", "LongLiveSinkMemory", title="A short window only", window=16, global_sink=0)],
            [sampler("sampler2", 128, 128, 2, "Sampler, memory off")],
            [decode("decode2", "LongLive_mini_memory_off", "Memory off")],
            row=1,
        ),
    ],
    [
        *from_mini("encode", "sampler1", "sampler2", "decode1", "decode2"),
        ["script", "SHOTS", "encode", "shots"],
        *(["encode", "SHOT_CONDITIONING", f"sampler{i}", "conditioning"] for i in (1, 2)),
        *([f"memory{i}", "MEMORY", f"sampler{i}", "memory"] for i in (1, 2)),
        *([f"sampler{i}", "STREAM", f"decode{i}", "stream"] for i in (1, 2)),
    ],
    [(film, frame) for film in ("Memory on", "Memory off") for frame in (40, 140, 340, 440)],
    across=4,
)

MINI_RETAKE = Template(
    "LongLive 04 Retake a shot (Mini)",
    [
        note(RETAKE_NOTE),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group("Shots", 2, *([shot(f"shot{i}", f"Shot {i}", text, i)] for i, text in enumerate(MINI_SHOTS, 1))),
        group("File", 3, [decode("decode", "LongLive_mini_retake", "Film")]),
    ],
    [
        *from_mini("shot1", "shot2", "shot3", "shot4", "decode"),
        *([f"shot{i}", "STATE", f"shot{i + 1}", "state"] for i in (1, 2, 3)),
        ["shot4", "STREAM", "decode", "stream"],
    ],
    [("Film", 40), ("Film", 140), ("Film", 236), ("Film", 340)],
)

MINI_STORYBOARD = Template(
    "LongLive 03 Storyboard, then the film (Mini)",
    [
        note(STORYBOARD_NOTE),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group("Script", 2, [shot_script("script", MINI_STORYBOARD_SCRIPT), encode("encode")]),
        group(
            "Storyboard",
            3,
            [sampler("sampler", 128, 128, 2)],
            [node("board", "LongLiveStoryboard", size=(400, 460))],
        ),
        group("Film", 4, [decode("decode", "LongLive_mini_from_storyboard", "Film")]),
    ],
    [
        *from_mini("encode", "sampler", "board", "decode"),
        ["script", "SHOTS", "encode", "shots"],
        ["encode", "SHOT_CONDITIONING", "sampler", "conditioning"],
        ["sampler", "STREAM", "board", "stream"],
        ["board", "STREAM", "decode", "stream"],
    ],
    [("Film", frame) for frame in (13, 106, 202, 298, 60, 156, 250, 345)],
    across=4,
    app=APP,
    app_output="decode",
)

MINI_CAST = Template(
    "LongLive 12 A hero in another film (Mini)",
    [
        note(CAST_NOTE),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group(
            "A film with the hero",
            2,
            [shot_script("script1", MINI_HERO_SCRIPT, 560, "Script of the hero"), encode("encode1")],
            [sampler("sampler1", 128, 128, 0)],
            [node("save", "LongLiveSaveCast", size=(300, 420), shot=1, block=2, name="mini-hero")],
        ),
        group(
            "Another film",
            3,
            [shot_script("script2", MINI_RECALL_SCRIPT, 560, "Script that recalls it"), encode("encode2")],
            [sampler("sampler2", 128, 128, 0)],
            [decode("decode", "LongLive_mini_cast", "Film")],
        ),
    ],
    [
        *from_mini("encode1", "encode2", "sampler1", "sampler2", "save", "decode"),
        *([f"script{i}", "SHOTS", f"encode{i}", "shots"] for i in (1, 2)),
        *([f"encode{i}", "SHOT_CONDITIONING", f"sampler{i}", "conditioning"] for i in (1, 2)),
        ["sampler1", "STREAM", "save", "stream"],
        ["save", "CAST", "script2", "cast"],
        ["sampler2", "STREAM", "decode", "stream"],
    ],
    [("Film", frame) for frame in (30, 75, 125, 170)],
)

MINI_TAKE = Template(
    "LongLive 05 A saved take and its retake (Mini)",
    [
        note(TAKE_NOTE),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group("Script", 2, [shot_script("script", MINI_TAKE_SCRIPT), encode("encode")]),
        group(
            "Film",
            3,
            [sampler("sampler", 128, 128, 2)],
            [
                node("save", "LongLiveSaveTake", size=(340, 220), name_prefix="takes/LongLive_mini"),
                decode("decode1", "LongLive_mini_take", "Film"),
            ],
        ),
        group(
            "Retake of shot 2",
            4,
            [node("retake", "LongLiveRetake", size=(340, 600), shot=2, seed=9, prompt=MINI_AGAIN, mode="keep")],
            [decode("decode2", "LongLive_mini_retaken", "Retake")],
        ),
    ],
    [
        *from_mini("encode", "sampler", "decode1", "retake", "decode2"),
        ["script", "SHOTS", "encode", "shots"],
        ["encode", "SHOT_CONDITIONING", "sampler", "conditioning"],
        ["sampler", "STREAM", "save", "stream"],
        ["save", "STREAM", "decode1", "stream"],
        ["save", "TAKE", "retake", "take"],
        ["retake", "STREAM", "decode2", "stream"],
    ],
    [(film, frame) for film in ("Film", "Retake") for frame in (15, 46, 78)],
    across=3,
)

MINI_EXTEND = Template(
    "LongLive 06 Extend a video (Mini)",
    [
        note(EXTEND_NOTE),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group(
            "A video",
            2,
            [shot("shot1", "Example video", MINI_CLIP, 3)],
            [decode("decode1", "LongLive_mini_video", "Video", (340, 420))],
        ),
        group(
            "Continuation",
            3,
            [node("extend", "LongLiveExtendVideo", size=(340, 480), prompt=MINI_CLIP, width=128, height=128)],
            [shot("shot2", "Same scene, no cut", MINI_CLIP, 4, cut=False)],
            [shot("shot3", "A cut", MINI_AFTER, 5)],
        ),
        group("File", 4, [decode("decode2", "LongLive_mini_extended", "Film")]),
    ],
    [
        *from_mini("shot1", "decode1", "extend", "shot2", "shot3", "decode2"),
        ["shot1", "STREAM", "decode1", "stream"],
        ["decode1", "VIDEO", "extend", "frames"],
        ["extend", "AUDIO", "decode2", "audio"],
        ["extend", "STATE", "shot2", "state"],
        ["shot2", "STATE", "shot3", "state"],
        ["shot3", "STREAM", "decode2", "stream"],
    ],
    [("Film", 40), ("Film", 89), ("Film", 140), ("Film", 240)],
)

NVFP4 = Template(
    "LongLive 08 Text to film (5B, NVFP4)",
    [
        note(NVFP4_NOTE, 480),
        group(
            "Models",
            1,
            [
                model_loader("nvfp4"),
                text_encoder(),
                vae(),
                loader("tiny", "VAELoader", "tiny", "vae_name") | {"title": "Preview VAE (optional)"},
            ],
        ),
        group("Script", 2, [shot_script("script", KEEPER, 900), encode("encode")]),
        group("Film", 3, [node("memory", "LongLiveSinkMemory", kv_format="nvfp4"), sampler("sampler", 832, 480, 7)]),
        group("File", 4, [decode("decode", "LongLive_5b_nvfp4", size=(560, 620))]),
    ],
    [*five_b_links(), ["tiny", "VAE", "decode", "preview_vae"]],
)

DMD_LORA = Template(
    "LongLive 09 Text to film (5B, bf16 with DMD LoRA)",
    [
        note(LORA_NOTE, 480),
        group(
            "Models",
            1,
            [
                model_loader("bf16"),
                loader("lora", "LongLiveDMDLora", "lora", "lora_name"),
                text_encoder(),
                vae(),
            ],
        ),
        group("Script", 2, [shot_script("script", GARDENER, 900), encode("encode")]),
        group("Film", 3, [node("memory", "LongLiveSinkMemory"), sampler("sampler", 1280, 704, 11)]),
        group("File", 4, [decode("decode", "LongLive_5b_bf16", size=(560, 620))]),
    ],
    [*five_b_links("lora"), ["model", "MODEL", "lora", "model"]],
)

IMAGE_TO_FILM = Template(
    "LongLive 10 Image to film (5B)",
    [
        note(IMAGE_NOTE),
        group("Models", 1, [model_loader("nvfp4"), text_encoder(), vae()]),
        group(
            "Picture and script",
            2,
            [shot_script("script", DRAWING, 900)],
            [node("picture", "LoadImage", size=(340, 380), image="example.png"), encode("encode")],
        ),
        group("Film", 3, [node("memory", "LongLiveSinkMemory"), sampler("sampler", 832, 480, 5)]),
        group("File", 4, [decode("decode", "LongLive_5b_image", size=(560, 620))]),
    ],
    [*five_b_links(), ["picture", "IMAGE", "sampler", "start_image"], ["vae", "VAE", "sampler", "vae"]],
)

TRAIN_WIDGETS = {"learning_rate": 1e-3, "sample_every": 50}

TRAIN = Template(
    "LongLive 11 Train a LoRA",
    [
        note(TRAIN_NOTE, 560),
        group("Model", 1, [node("mini", "LongLiveMini")]),
        group(
            "Training",
            2,
            [node("train", "LongLiveTrainLora", size=(440, 1000), data="my_clips", **TRAIN_WIDGETS)],
        ),
        group("Result", 3, [node("lora", "LongLiveDMDLora", lora_name="my_lora")]),
        group("Script", 4, [shot_script("script", TRAIN_SCRIPT), encode("encode")]),
        group("Film", 5, [node("memory", "LongLiveSinkMemory"), sampler("sampler", 128, 128, 2)]),
        group("File", 6, [decode("decode", "LongLive_taught", "Film")]),
    ],
    [
        *from_mini("encode", "decode"),
        ["mini", "MODEL", "train", "model"],
        ["mini", "CLIP", "train", "clip"],
        ["mini", "VAE", "train", "vae"],
        ["mini", "MODEL", "lora", "model"],
        ["train", "lora_name", "lora", "lora_name"],
        ["lora", "MODEL", "sampler", "model"],
        ["script", "SHOTS", "encode", "shots"],
        ["encode", "SHOT_CONDITIONING", "sampler", "conditioning"],
        ["memory", "MEMORY", "sampler", "memory"],
        ["sampler", "STREAM", "decode", "stream"],
    ],
)

TEMPLATES = (
    MINI_TEXT_TO_FILM,
    MINI_IMAGE_TO_FILM,
    MINI_MEMORY_ON_AND_OFF,
    MINI_RETAKE,
    MINI_EXTEND,
    MINI_TAKE,
    MINI_STORYBOARD,
    NVFP4,
    DMD_LORA,
    IMAGE_TO_FILM,
    TRAIN,
    MINI_CAST,
)


def blueprint_nodes(title: str) -> tuple[Json, Json]:
    """The nodes to build for the blueprint (Mini stands for whatever will be connected), and how to fold them into one.

    The inputs of a folded node are those that come from outside, and `inputs` beside: [node, input or widget].
    """
    built = {
        "groups": [
            {"title": None, "cell": [0, 0], "columns": [[node("mini", "LongLiveMini")]]},
            {"title": None, "cell": [1, 0], "columns": [[shot_script("script", MINI_FILM), encode("encode")]]},
            {
                "title": None,
                "cell": [2, 0],
                "columns": [
                    [node("memory", "LongLiveSinkMemory"), sampler("sampler", 128, 128, 2)],
                    [decode("decode", "LongLive")],
                ],
            },
        ],
        "links": [*MINI_TEXT_TO_FILM.links, ["mini", "VAE", "sampler", "vae"]],
    }
    conversion = {
        "title": title,
        "description": "Renders a script to a video: Encode Shots, Sink Memory, Streaming Sampler and Async Decode.",
        "keep": ["LongLiveMini"],
        "inputs": [
            ["LongLiveStreamingSampler", "start_image"],
            ["LongLiveShotScript", "script"],
            ["LongLiveStreamingSampler", "width"],
            ["LongLiveStreamingSampler", "height"],
            ["LongLiveStreamingSampler", "seed"],
            ["LongLiveStreamingSampler", "steps"],
            ["LongLiveAsyncDecode", "filename_prefix"],
        ],
    }
    return built, conversion
