"""Write clips: video files with their sound, GIF and WebP."""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, cast

from PIL import Image
from torch import Tensor

from vggfeat import files
from vggfeat.errors import ImageError, InputError, VggfeatError, check_number
from vggfeat.pictures import images
from vggfeat.pictures.guard import refusing
from vggfeat.pictures.images import Picture
from vggfeat.pictures.video.clips import ClipFrame, check_av
from vggfeat.pictures.video.names import CLIP_ENDINGS, is_video

_CLOCK = Fraction(1, 90_000)  # seconds; frame rates of film, PAL and NTSC are whole numbers of it
_MOST_PIXELS_A_SIDE = {".gif": 65_535, ".webp": 16_383}
_BT709, _LIMITED = 1, 1  # ffmpeg's numbers
# {ending: encoder of video, its options, encoder of sound that cannot be copied}
_ENCODERS: dict[str, tuple[str, dict[str, str], str]] = {
    **dict.fromkeys(CLIP_ENDINGS, ("libx264", {"crf": "16", "preset": "medium"}, "aac")),
    ".webm": ("libvpx-vp9", {"crf": "20", "b": "0"}, "libopus"),
}


def check_clip_writable(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> None:
    """Raise the error that `write_clip` would raise for frames of (height, width) `size`; call it before long work."""
    ending = images.writable(Path(path), CLIP_ENDINGS).suffix.lower()
    if is_video(path):
        check_av()
        _check_encoder(ending)
    least, most = 1 + is_video(path), _MOST_PIXELS_A_SIDE.get(ending, 16_384)
    if size and not least <= min(size) <= max(size) <= most:
        limit = f"at most {most}" if max(size) > most else f"at least {least}"
        raise ImageError(f"cannot write '{path}': it holds {limit} pixels a side, not {size[1]}x{size[0]}")


def clip_left_out(path: str | os.PathLike[str], *, size: tuple[int, int], alpha: bool) -> list[str]:
    """What a clip named `path` cannot hold of frames of (height, width) `size`, as lines for their owner.

    >>> clip_left_out("a.mp4", size=(47, 64), alpha=True)
    ["a video has even sides: 'a.mp4' will be 64x46", "MP4 has no transparency: 'a.mp4' will be opaque"]
    """
    if not is_video(path):
        return []
    height, width = (side - side % 2 for side in size)
    kind = Path(path).suffix[1:].upper()
    odd = f"a video has even sides: '{path}' will be {width}x{height}"
    opaque = f"{kind} has no transparency: '{path}' will be opaque"
    return [odd] * ((height, width) != tuple(size)) + [opaque] * (alpha and kind != "WEBM")


def write_clip(
    path: str | os.PathLike[str],
    frames: Iterable[ClipFrame | Picture | Tensor],
    *,
    fps: float | Fraction | None = None,
    sound: str | os.PathLike[str] | None = None,
) -> None:
    """Write frames as .mp4, .mov, .mkv, .m4v (H.264), .webm (VP9), or as .gif or .webp, which loop forever.

    Transparency is kept in WebM, GIF and WebP. Video needs even sides: an odd side loses its last row or column.

    Args:
        path: the file. It appears whole or not at all.
        frames: those of a clip, with their times; or pictures, or tensors (3, H, W) or (1, 3, H, W) in [0, 1]. They are
            read one by one, and must have one size.
        fps: frames a second, instead of the frames' own times; 25 for frames that have none.
        sound: a video file whose sound is added. It is copied, or encoded if the format does not take it as it is.

    Raises `ImageError` for a file that cannot be written, `InputError` for no frames or several sizes, and
    `VggfeatError` for video if PyAV is missing.

    Example:
        >>> import tempfile, torch
        >>> from vggfeat import write_clip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_clip(f"{folder}/a.webp", torch.rand(3, 3, 16, 24), fps=10)
    """
    path = Path(path)
    check_clip_writable(path)
    if fps is not None:
        fps = float(fps)
        check_number("fps", fps, 0.1, 240.0)
    timed = _uniform(_timed(frames, fps))
    first = next(timed, None)
    if first is None:
        raise InputError("a clip needs at least one frame")
    timed = chain([first], timed)
    height, width = first.picture.rgb.shape[2:]
    check_clip_writable(path, size=(height, width))
    with files.replacing(path) as unfinished, _encoding(path):
        if is_video(path):
            _write_video(unfinished, timed, first, None if sound is None else Path(sound))
        else:
            _write_pictures(unfinished, timed)


def _check_encoder(ending: str) -> None:
    """Raise `VggfeatError` if PyAV was built without the encoder of a format."""
    import av

    name = _ENCODERS[ending][0]
    if name not in av.codecs_available:
        raise VggfeatError(f"PyAV lacks the encoder {name}, which {ending} needs: choose .gif or .webp")


@contextmanager
def _encoding(path: Path) -> Generator[None]:
    """Convert the errors of the encoders to `ImageError`; those of the frames pass."""
    try:
        yield
    except VggfeatError:
        raise
    except Exception as error:
        with refusing(f"cannot write '{path}'", "it cannot be encoded"):
            raise error from None


def _timed(frames: Iterable[ClipFrame | Picture | Tensor], fps: float | None) -> Iterator[ClipFrame]:
    for number, frame in enumerate(frames):
        if isinstance(frame, ClipFrame):
            timed = frame
        else:
            rgb = frame if isinstance(frame, Tensor) else frame.rgb
            rgb = rgb[None] if rgb.ndim == 3 else rgb
            picture = Picture(rgb) if isinstance(frame, Tensor) else frame
            timed = ClipFrame(f"frame {number + 1}", picture, number / (fps or 25), 1 / (fps or 25))
        yield timed if fps is None else timed._replace(start=number / fps, seconds=1 / fps)


def _uniform(frames: Iterator[ClipFrame]) -> Iterator[ClipFrame]:
    """Pass the frames on. Raises `InputError` at one of another size than the first."""
    size = None
    for frame in frames:
        shape = tuple(frame.picture.rgb.shape)
        size = size or shape
        if shape != size:
            raise InputError(f"{frame.name} is {shape[3]}x{shape[2]}, the first frame {size[3]}x{size[2]}")
        yield frame


def _write_pictures(path: Path, frames: Iterator[ClipFrame]) -> None:
    # The times at which frames end are rounded, not their lengths, so that errors do not add up.
    unit, least = (10, 20) if path.suffix == ".gif" else (1, 20)  # ms; viewers show shorter frames for longer
    durations: list[int] = []
    pictures: list[Image.Image] = []
    end = 0.0
    for frame in frames:
        end += frame.seconds * 1000
        durations.append(max(least, unit * round((end - sum(durations)) / unit)))
        picture = images.to_pil(frame.picture.rgb, frame.picture.alpha)
        if path.suffix == ".gif" and frame.picture.alpha is None:
            picture = picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
        pictures.append(picture)
    if path.suffix == ".gif":
        options: dict[str, Any] = {"optimize": False, "disposal": 2}
    else:  # Pillow writes no transparency into a lossy animation
        options = {"quality": 90, "method": 4, "lossless": any(picture.mode == "RGBA" for picture in pictures)}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options)


def _write_video(path: Path, frames: Iterator[ClipFrame], first: ClipFrame, sound: Path | None) -> None:
    import av

    name, options, sound_encoder = _ENCODERS[path.suffix]
    alpha = path.suffix == ".webm" and first.picture.alpha is not None
    height, width = (side - side % 2 for side in first.picture.rgb.shape[2:])
    with ExitStack() as stack:
        container = stack.enter_context(av.open(os.fspath(path), "w"))
        rate = Fraction(1 / first.seconds).limit_denominator(1001)
        stream = cast("Any", container.add_stream(name, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuva420p" if alpha else "yuv420p"
        stream.codec_context.time_base = _CLOCK
        for tag in ("colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, tag, _BT709)
        stream.codec_context.color_range = _LIMITED
        if alpha:
            stream.metadata["alpha_mode"] = "1"
        source = stack.enter_context(av.open(os.fspath(sound))) if sound else None
        packets = _Sound(container, source, sound_encoder) if source else None
        last = -1
        for frame in frames:
            encoded = _encodable(frame.picture, height, width, stream.pix_fmt, alpha=alpha)
            last = max(last + 1, round(frame.start / _CLOCK))
            encoded.pts, encoded.time_base = last, _CLOCK
            if packets:
                packets.write(until=frame.start)
            container.mux(stream.encode(encoded))
        container.mux(stream.encode())
        if packets:
            packets.write()


def _encodable(picture: Picture, height: int, width: int, pixels: str, *, alpha: bool) -> Any:
    """A picture as the encoder takes it."""
    import av
    import numpy as np
    from av.video.reformatter import ColorRange, Colorspace

    if alpha:
        image = images.to_pil(picture.rgb, picture.alpha).convert("RGBA")
    else:
        image = images.to_pil(images.flatten(picture))
    values = np.asarray(image.crop((0, 0, width, height)))
    frame = av.VideoFrame.from_ndarray(values, format="rgba" if alpha else "rgb24")
    return frame.reformat(format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


class _Sound:
    """Copies the sound of `source` into `container`, both open, in step with the frames that are written."""

    def __init__(self, container: Any, source: Any, encoder: str) -> None:
        self._container = container
        self._source = source
        self._streams: dict[int, Any] = {}
        self._resamplers: dict[int, Any] = {}
        for stream in self._source.streams.audio:
            try:
                made = container.add_stream_from_template(stream)
            except ValueError:  # the format does not take this kind of sound
                rate = 48_000 if encoder == "libopus" else stream.codec_context.sample_rate
                made = container.add_stream(encoder, rate=rate, layout=stream.codec_context.layout.name)
                self._resamplers[stream.index] = None
            self._streams[stream.index] = made
        self._packets = self._demuxed()
        self._next = next(self._packets, None)

    def write(self, until: float = float("inf")) -> None:
        """Write what is heard before the time `until`, in seconds."""
        while self._next is not None:
            packet = self._next
            if packet.pts is not None and float(packet.pts * packet.time_base) > until:
                return
            self._write(packet)
            self._next = next(self._packets, None)
        if until == float("inf"):
            for index, resampler in self._resamplers.items():
                if resampler is not None:
                    for frame in resampler.resample(None):
                        self._container.mux(self._streams[index].encode(frame))
                self._container.mux(self._streams[index].encode(None))

    def _demuxed(self) -> Iterator[Any]:
        if self._streams:
            yield from self._source.demux(audio=tuple(range(len(self._streams))))

    def _write(self, packet: Any) -> None:
        from av.audio.resampler import AudioResampler

        index = packet.stream.index
        made = self._streams[index]
        if index not in self._resamplers:
            if packet.size:  # the empty one at the end asks a decoder for its last frames
                packet.stream = made
                self._container.mux(packet)
            return
        if self._resamplers[index] is None:
            context = made.codec_context
            made.codec_context.open()
            self._resamplers[index] = AudioResampler(
                context.format, context.layout, context.sample_rate, context.frame_size or None
            )
        for decoded in packet.decode():
            for frame in self._resamplers[index].resample(decoded):
                self._container.mux(made.encode(frame))
