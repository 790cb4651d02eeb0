"""Clips to read and write in tests, and what is heard in a video."""

from fractions import Fraction

import numpy as np
import torch

from vggfeat.pictures.images import Picture
from vggfeat.pictures.video.clips import ClipFrame

QUARTERS = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [0, 1]], [[0, 0], [1, 0.2]]])  # red, green / blue, yellowish


def picture(height=48, width=64, level=1.0):
    """Four coloured quarters."""
    return torch.nn.functional.interpolate(QUARTERS[None], (height, width)) * level


def clip_frames(count=5, step=0.04):
    return [ClipFrame(f"{i}", Picture(picture(level=1 - 0.1 * i)), i * step, step) for i in range(count)]


def with_sound(path, codec, rate=44_100, seconds=1.0):
    """A video whose sound is a tone of 441 Hz."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for frame in clip_frames(round(25 * seconds), 0.04)[:25]:
            values = (frame.picture.rgb[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode())
        tone = np.sin(np.arange(round(rate * seconds)) * 2 * np.pi * 441 / rate).astype(np.float32)
        for begin in range(0, len(tone), 1024):
            block = av.AudioFrame.from_ndarray(tone[None, begin : begin + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = rate, begin, Fraction(1, rate)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def heard(path):
    """The codec, the length in seconds and the main frequency of a file's sound."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        blocks = [frame.to_ndarray()[0] for frame in container.decode(stream)]
        values, rate = np.concatenate(blocks), stream.codec_context.sample_rate
    frequency = np.abs(np.fft.rfft(values)).argmax() * rate / len(values)
    return stream.codec_context.name, len(values) / rate, frequency
