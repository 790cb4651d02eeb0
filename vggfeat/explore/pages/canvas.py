"""A dark page for pictures and titles, drawn with Pillow and its built-in font."""

import textwrap
import unicodedata
from functools import cache
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from vggfeat.errors import InputError
from vggfeat.pictures import images

BACKGROUND, SLATE, ACCENT = (18, 20, 24), (72, 78, 90), (64, 224, 255)
TEXT, DIM = (240, 240, 240), (158, 164, 174)

# The most pixels of a page that viewers open without trouble.
_MOST_PIXELS = 60_000_000

Anchor = Literal["la", "ma", "ra"]


class Canvas:
    """A page of `width` x `height` pixels. Raises `InputError` if it is too large for viewers."""

    def __init__(self, width: int, height: int) -> None:
        if width * height > _MOST_PIXELS:
            raise InputError(f"the page would have {width}x{height} pixels: ask for fewer layers or fewer channels")
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def put(self, x: int, y: int, picture: Tensor | Image.Image) -> None:
        """Place a picture, (1, 3, H, W) in [0, 1], with its upper left corner at (x, y)."""
        self.image.paste(images.to_pil(picture) if isinstance(picture, Tensor) else picture, (x, y))

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        fill: tuple[int, int, int] = TEXT,
        anchor: Anchor = "la",
        width: float | None = None,
    ) -> float:
        """Write a line with its top at `y`, and `x` at its `anchor`. Returns its width in pixels.

        A line wider than `width` is cut off with an ellipsis. The font has ASCII only: other letters lose their accents
        or become question marks.
        """
        font, line = _font(size), _plain(text)
        if width is not None and font.getlength(line) > width:
            while line and font.getlength(f"{line}...") > width:
                line = line[:-1]
            line = f"{line}..."
        self.draw.text((x, y), line, font=font, fill=fill, anchor=anchor)
        return font.getlength(line)

    def write_lines(self, x: float, y: float, text: str, *, width: int, height: int) -> None:
        """Write small text broken into lines, as far as it fits into `width` x `height` pixels."""
        lines = textwrap.wrap(text, max(12, (width + 20) // 8))[: max(1, height // 18)]
        for number, line in enumerate(lines):
            self.write(x, y + 18 * number, line, size=14, width=width)

    def tensor(self) -> Tensor:
        """The page as a picture: (1, 3, H, W) in [0, 1]."""
        return images.from_pil(self.image).rgb


def contain(height: int, width: int, most_height: int, most_width: int) -> tuple[int, int]:
    """The largest (height, width) with the same aspect ratio that fits into the given limits, each at least 1."""
    scale = min(most_height / height, most_width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def scaled(picture: Tensor, height: int, width: int, *, smooth: bool = False) -> Tensor:
    """Resize a picture: averaged if it shrinks; if it grows, each pixel is a square unless `smooth`."""
    if smooth or (height < picture.shape[2] and width < picture.shape[3]):
        return images.resize(picture, height, width)
    return interpolate(picture, (height, width), mode="nearest-exact")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    kept = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter == "·" else "?" for letter in kept)


def blank(height: int, width: int, fill: tuple[int, int, int] = BACKGROUND) -> Tensor:
    """A picture of one colour: (1, 3, height, width)."""
    return (torch.tensor(fill) / 255).reshape(1, 3, 1, 1).expand(1, 3, height, width).clone()
