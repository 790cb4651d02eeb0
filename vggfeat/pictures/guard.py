"""Convert Pillow's exceptions to one-line errors, and change its process-wide settings only temporarily."""

import textwrap
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from vggfeat import files
from vggfeat.errors import ImageError

_PILLOW = threading.RLock()


@contextmanager
def refusing(action: str, otherwise: str) -> Generator[None]:
    """Convert any exception in the block to an `ImageError` of one line: `action`, then the reason.

    `otherwise` is the reason given for an exception that is not recognised; the exception's text follows it.
    """
    try:
        yield
    except Exception as error:
        raise ImageError(f"{action}: {_reason(error, otherwise)}") from error


def _reason(error: Exception, otherwise: str) -> str:
    # PyAV's errors repeat the file in their text.
    text = (
        textwrap.shorten(str(getattr(error, "strerror", None) or error), 160, placeholder="...") or type(error).__name__
    )
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture Pillow can read"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return files.reason(error)
    if "truncated" in text.lower():
        return "the file is truncated"
    return f"{otherwise} ({text})"


@contextmanager
def quiet(max_pixels: int | None = None) -> Generator[None]:
    """Ignore Pillow's warnings and set its pixel limit to `max_pixels` inside the block; one thread at a time.

    Both settings belong to the process: two threads that saved and restored them in turn would leave them changed.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = limit if max_pixels is None else max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
