"""Read clips frame by frame: video files, animated pictures, and folders of pictures."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vggfeat import files
from vggfeat.errors import ImageError, imported
from vggfeat.pictures import images
from vggfeat.pictures.guard import quiet, refusing
from vggfeat.pictures.images import Picture
from vggfeat.pictures.video.names import ANIMATED, is_video

_UNTIMED = 0.1  # seconds for which viewers show a frame of an animation that gives no time
_DEFAULT_RATE = Fraction(25)
_UNSPECIFIED = 2  # ffmpeg's number of a colour space that the file does not name
_HD = 720  # rows from which untagged video counts as BT.709


class ClipFrame(NamedTuple):
    """A frame of a clip.

    Args:
        name: the name of its file, or its number, for messages.
        picture: with its transparency, if it has any.
        start, seconds: when it appears, and for how long.
    """

    name: str
    picture: Picture
    start: float
    seconds: float


@dataclass(frozen=True)
class Clip(ABC):
    """A clip that can be read again and again, one frame in memory at a time. `open_clip` makes it.

    Args:
        path: the file or the folder.
        count: the number of frames; an estimate for a video file that does not state it.
        rate: frames a second on average; a folder's is 25.

    Example:
        >>> import tempfile, torch
        >>> from vggfeat import open_clip, write_clip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_clip(f"{folder}/a.gif", torch.rand(3, 3, 16, 24), fps=10)
        ...     clip = open_clip(f"{folder}/a.gif")
        ...     clip.count, float(clip.rate), [frame.picture.rgb.shape[2:] for frame in clip][0]
        (3, 10.0, torch.Size([16, 24]))
    """

    path: Path
    count: int
    rate: Fraction

    @abstractmethod
    def __iter__(self) -> Iterator[ClipFrame]:
        """Read the frames in their order. Raises `ImageError` for a damaged file."""


class _Pictures(Clip):
    """A folder of pictures in natural order."""

    def __iter__(self) -> Iterator[ClipFrame]:
        for number, path in enumerate(files.pictures_in(self.path)):
            yield ClipFrame(path.name, images.read_picture(path), float(number / self.rate), float(1 / self.rate))


class _Animation(Clip):
    """A GIF, WebP, PNG or AVIF with several frames."""

    def __iter__(self) -> Iterator[ClipFrame]:
        start = 0.0
        with images.opened(self.path) as image:
            for number in range(self.count):
                _seek(image, number)
                seconds = image.info.get("duration", 0) / 1000 or _UNTIMED
                yield ClipFrame(f"frame {number + 1}", images.from_pil(image.copy()), start, seconds)
                start += seconds


class _Video(Clip):
    """A video file, decoded by PyAV: upright, with square pixels."""

    def __iter__(self) -> Iterator[ClipFrame]:
        import av

        with _av_errors(self.path), av.open(os.fspath(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(_decoded(container, stream)):
                start = float(number / self.rate) if frame.time is None else frame.time
                seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
                picture = _upright(frame, stream.sample_aspect_ratio)
                yield ClipFrame(f"frame {number + 1}", picture, start, seconds or float(1 / self.rate))


def open_clip(path: str | os.PathLike[str]) -> Clip:
    """Open a video file, an animated GIF, WebP, PNG or AVIF, or a folder of pictures in natural order.

    A picture that is not animated is a clip of one frame.

    Raises `ImageError` for what is none of these, and `VggfeatError` for a video file if PyAV is missing.

    Example:
        >>> import tempfile, torch
        >>> from vggfeat import open_clip, write_picture
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in (1, 2, 10):
        ...         write_picture(f"{folder}/{number}.png", torch.rand(1, 3, 4, 6))
        ...     [frame.name for frame in open_clip(folder)]
        ['1.png', '2.png', '10.png']
    """
    path = Path(path)
    if path.is_dir():
        if not (count := len(files.pictures_in(path))):
            raise ImageError(f"there is no picture in '{path}'")
        return _Pictures(path, count, _DEFAULT_RATE)
    if is_video(path):
        return _open_video(path)
    with images.opened(path) as image:
        with quiet():
            count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        seconds = 0.0
        for number in range(count):
            _seek(image, number)
            seconds += image.info.get("duration", 0) / 1000 or _UNTIMED
    return _Animation(path, count, Fraction(count / seconds).limit_denominator(1000))


def check_av() -> None:
    """Raise `VggfeatError` if PyAV is missing."""
    imported("av", "video files need PyAV", "video", instead="use a folder of frames or a .gif")


def _seek(image: Image.Image, number: int) -> None:
    """Decode a frame of an opened picture, whose size has been checked."""
    with quiet(image.width * image.height):
        image.seek(number)
        image.load()


def _av_errors(path: Path) -> Any:
    """Convert PyAV's errors, which derive from OSError or ValueError, to `ImageError`."""
    return refusing(f"cannot read '{path}'", "the file is damaged")


def _open_video(path: Path) -> Clip:
    check_av()
    import av

    if not path.is_file():
        raise ImageError(f"cannot read '{path}': {'it is a folder' if path.is_dir() else 'no such file'}"
                         f"{files.similar_names(path)}")  # fmt: skip
    if not path.stat().st_size:
        raise ImageError(f"cannot read '{path}': it is empty")
    with _av_errors(path), av.open(os.fspath(path)) as container:
        if not container.streams.video:
            raise ImageError("it holds no video")
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
        seconds = 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / 1_000_000
        return _Video(path, stream.frames or max(1, round(seconds * rate)), Fraction(rate))


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Decode a stream, with the transparency that ffmpeg's own VP8 and VP9 decoders leave out."""
    import av

    name = stream.codec_context.name
    if name not in ("vp8", "vp9") or _tag(stream, "alpha_mode") != "1":
        yield from container.decode(stream)
        return
    decoder: Any = av.CodecContext.create("libvpx" if name == "vp8" else "libvpx-vp9", "r")
    for packet in container.demux(stream):
        yield from decoder.decode(packet if packet.size else None)


def _tag(stream: Any, name: str) -> str | None:
    """The metadata of a stream by its name, whose case depends on the format."""
    return next((value for key, value in stream.metadata.items() if key.lower() == name), None)


def _upright(frame: Any, ratio: Fraction | None) -> Picture:
    """A decoded frame, rotated upright and with square pixels. `ratio`: a pixel's width by its height."""
    from av.video.reformatter import Colorspace

    has_alpha = any(component.is_alpha for component in frame.format.components)
    untagged = frame.colorspace == _UNSPECIFIED
    values = frame.to_ndarray(
        format="rgba" if has_alpha else "rgb24",
        src_colorspace=Colorspace.ITU709 if untagged and frame.height >= _HD else None,
    )
    picture = Image.fromarray(values)
    if ratio and ratio != 1:
        picture = picture.resize((max(1, round(picture.width * ratio)), picture.height), Image.Resampling.BICUBIC)
    # PyAV counts degrees against the clock, as numpy does.
    return images.from_pil(Image.fromarray(np.rot90(np.asarray(picture), round(frame.rotation / 90)).copy()))
