"""Names and numbers that commands show before torch is imported."""

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

STEADINESS = 300.0
"""The default weight of the difference between a painted frame and the one before, see `Before`."""


def is_video(path: "str | os.PathLike[str]") -> bool:
    """Whether the ending is that of a video file.

    >>> is_video("a.MP4"), is_video("a.gif")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_ENDINGS
