"""Write sequences of pictures as GIF, WebP or MP4."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from PIL import Image
from torch import Tensor

from vggfeat import files
from vggfeat.errors import ImageError, InputError, VggfeatError
from vggfeat.pictures import images
from vggfeat.pictures.guard import refusing

_MOST = {".gif": 65535, ".webp": 16383, ".mp4": 16384}

ENDINGS = tuple(_MOST)
"""The endings that `write_animation` accepts."""


def check_animation(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> None:
    """Raise the error that `write_animation` would raise for frames of (height, width) `size`.

    Call it before long work.
    """
    path = Path(path)
    images.writable(path, ENDINGS)
    most = _MOST[path.suffix.lower()]
    if size and max(size) > most:
        kind = path.suffix[1:].upper()
        raise ImageError(f"cannot write '{path}': {kind} holds at most {most} pixels a side, not {size[1]}x{size[0]}")
    if path.suffix.lower() == ".mp4" and (find_spec("imageio") is None or find_spec("imageio_ffmpeg") is None):
        raise VggfeatError('MP4 needs imageio and its ffmpeg: pip install "vggfeat[video]", or write .gif or .webp')


def frame(picture: Tensor, height: int, width: int) -> Image.Image:
    """Convert a picture, (1, 3, H, W) in [0, 1], to a frame of `height` x `width` pixels."""
    return images.to_pil(images.resize(picture, height, width))


def write_animation(
    path: str | os.PathLike[str], frames: Sequence[Image.Image], *, fps: float = 12.0, hold: float = 2.0
) -> None:
    """Write RGB `frames` of one size as .gif or .webp, which loop forever, or .mp4.

    If that cannot be done, they are written as an animated PNG beside it, whose name the error states.

    Args:
        path: the file. It appears whole or not at all.
        frames: at least one.
        fps: frames a second; GIF rounds the duration of a frame to 1/100 s.
        hold: extra seconds to show the last frame.

    MP4 needs even sides: an odd side loses its last row or column. Raises `ImageError` for a file that cannot be
    written, `InputError` for frames of several sizes, and `VggfeatError` for MP4 if the extra `video` is missing.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_animation(f"{folder}/a.gif", [Image.new("RGB", (8, 6), name) for name in ("red", "blue")])
    """
    path = Path(path)
    check_animation(path, size=(frames[0].height, frames[0].width) if frames else None)
    if not frames or len({item.size for item in frames}) > 1:
        raise InputError(f"an animation needs frames of one size, not {len({item.size for item in frames})} sizes")
    if not 0.1 <= fps <= 60 or not 0 <= hold <= 600:
        raise InputError(f"an animation has 0.1 to 60 frames a second and holds 0 to 600 s, not {fps:g} and {hold:g}")
    try:
        _write(path, frames, fps, hold)
    except ImageError as error:
        spare = next(name for name in images.spares(path) if not name.exists())
        try:
            _write(spare, frames, fps, hold)
        except ImageError:
            raise error from error.__cause__
        raise ImageError(f"{error}; it is saved as '{spare}'") from error


def _write(path: Path, frames: Sequence[Image.Image], fps: float, hold: float) -> None:
    save = _write_video if path.suffix.lower() == ".mp4" else _write_pictures
    with refusing(f"cannot write '{path}'", "it cannot be encoded"), files.replacing(path) as unfinished:
        save(unfinished, frames, fps, hold)


def _write_pictures(path: Path, frames: Sequence[Image.Image], fps: float, hold: float) -> None:
    each = max(20, round(1000 / fps))  # viewers show shorter frames for longer
    durations = [each] * (len(frames) - 1) + [each + round(1000 * hold)]
    if path.suffix == ".gif":
        # One palette for each frame: colours change from frame to frame.
        frames = [item.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for item in frames]
        options: dict[str, Any] = {"optimize": False, "disposal": 1}
    else:
        options = {"quality": 90, "method": 4} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=list(frames[1:]), duration=durations, loop=0, **options)


def _write_video(path: Path, frames: Sequence[Image.Image], fps: float, hold: float) -> None:
    import numpy as np
    from imageio import v2

    imageio = cast("Any", v2)
    width, height = (side - side % 2 for side in frames[0].size)
    with imageio.get_writer(path, fps=fps, codec="libx264", quality=8, macro_block_size=1) as writer:
        for item in [*frames, *[frames[-1]] * round(hold * fps)]:
            writer.append_data(np.asarray(item.crop((0, 0, width, height))))
