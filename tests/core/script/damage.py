"""Texts made by mixing and damaging scripts that people bring."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

PIECES = [
    *(
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        ":",
        "：",
        "-",
        "—",
        "|",
        "#",
        "# ",
        "- ",
        "1. ",
        "2. ",
        "> ",
        "**",
        "```",
        "```\n",
        "`",
    ),
    *("(", ")", "[", "]", "{", "}", "【", "】", "（", "）", "<", ">", '"', ",", "\\", "@", "@seed=7", "---", "\n---\n"),
    *(
        "4s",
        "(4s)",
        "[0s-4s]",
        "0:00-0:04",
        "0-4",
        "4 s",
        "00:00:04:12",
        "00:00:01,000 --> 00:00:02,000",
        "96",
        "秒",
        "90s",
    ),
    *(
        "Shot 1",
        "Shot 2: ",
        "Scene 1",
        "[Shot 1]",
        "镜头1：",
        "第2镜",
        "シーン1：",
        "Szene 1: ",
        "Cut 3 ",
        "continue: ",
        "INT. ",
        "Image 1 -> Video prompt ",
        "I2V prompt 2",
        "Length (frames): ",
    ),
    *(
        "Prompt: ",
        "Duration: ",
        "Camera: ",
        "Negative: ",
        "Title: ",
        "style: ",
        "hero: ",
        "{hero}",
        "{a|b}",
        "CUT TO:",
        "FADE IN:",
    ),
    *(
        "Here is your script:",
        "Let me know!",
        "a fox",
        "狐狸",
        "🎬",
        "\ufeff",
        "\u200b",
        "\u2028",
        "\xa0",
        "\x00",
        "é",
        "٣",
        "①",
    ),
]


def damaged(samples: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """Yields `count` texts: lines of several samples mixed, cut, repeated and strewn with pieces of structure."""
    rng = random.Random(seed)
    for _ in range(count):
        text = rng.choice(samples)
        if rng.random() < 0.5:
            lines = text.splitlines(keepends=True) + rng.choice(samples).splitlines(keepends=True)
            if rng.random() < 0.5:
                rng.shuffle(lines)
            text = "".join(lines[: rng.randrange(1, 14)])
        for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
            at, length = rng.randrange(len(text) + 1), rng.choice((0, 0, 0, 1, 1, 3, 12))
            text = text[:at] + rng.choice(["", *PIECES]) + text[at + length :]
        yield text
