"""A film's media type names its codecs, as browsers want it before they play a film that grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from longlive.longlive_core.video import VideoWriter
from longlive.longlive_core.video.media_type import media_type

from .films import OFFERED, SIZE, WORKFLOW, film_name, tone

EXPECTED = {
    "h264": 'video/mp4; codecs="avc1.64000a{}"',
    "h265": 'video/mp4; codecs="hvc1.1.6.L30.90{}"',
    "av1": 'video/mp4; codecs="av01.0.00M.08{}"',
    "vp9": 'video/webm; codecs="vp9{}"',
    "prores": "video/quicktime",
}


@pytest.mark.parametrize("codec", OFFERED)
def test_the_type_is_that_of_the_header(tmp_path: Path, codec: str) -> None:
    """It is known from the header on, before the first frame, whatever metadata there are; sound is named too."""
    path = tmp_path / film_name(codec)
    for sound, named in ((None, ""), (tone(1.0, 48_000, 1), ", opus" if codec == "vp9" else ", mp4a.40.2")):
        with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound, metadata=WORKFLOW):
            assert media_type(path, codec, sound is not None) == EXPECTED[codec].format(named)
