"""Names and numbers that commands show before torch is imported."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

METHODS = ("tvl1", "ilk", "raft")
"""The methods that compute optical flow."""

VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".mts", ".ogv", ".wmv", ".3gp")
"""The endings of video files that are read."""

CLIP_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".gif", ".webp")
"""The endings of clips that are written."""

ANIMATED = frozenset({"GIF", "WEBP", "PNG", "AVIF"})
"""Pillow's names of the formats that may hold an animation. Pages of a TIFF are not frames."""

STEADINESS = 300.0
"""The default weight of the loss between a painted frame and the one before, see `Before`."""

FAST_STEADINESS = 1.0
"""The default weight of the painting before in the blend with a frame in an instant style, see `Before.blended`."""


def is_video(path: "str | os.PathLike[str]") -> bool:
    """Whether the ending is that of a video file.

    >>> is_video("a.MP4"), is_video("a.gif")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_ENDINGS


def is_animated(path: "str | os.PathLike[str]") -> bool:
    """Whether `path` is a file with several frames: a video, or an animated picture. Reads headers only.

    >>> is_animated("a.mp4"), is_animated("missing.gif")
    (True, False)
    """
    if is_video(path):
        return True
    from PIL import Image

    from vggfeat.pictures.guard import quiet

    try:
        with quiet(sys.maxsize), Image.open(path) as image:
            return image.format in ANIMATED and getattr(image, "is_animated", False)
    except Exception:  # noqa: BLE001 - whoever reads it as a picture will say what is wrong
        return False
