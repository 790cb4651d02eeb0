"""Limits on what a page may ask for, and how its uploads are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.errors import ImageError, InputError

if TYPE_CHECKING:
    from vggfeat.pictures.images import Picture


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a page may ask for.

    `megabytes` and `pixels` limit an uploaded file, `size` the long side of a painting in pixels, `steps` the steps of
    a stage, `waiting` the length of the queue. Pictures larger than `analysed` pixels on their long side are shrunk to
    it before they are explored or compared.
    """

    megabytes: int = 32
    pixels: int = 40_000_000
    size: int = 2048
    steps: int = 1000
    waiting: int = 16
    analysed: int = 768


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded picture and its file on the server."""

    path: Path
    picture: "Picture"

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.name


def read_upload(payload: Mapping[str, str] | None, role: str, folder: Path, limits: Limits) -> Upload:
    """Read a picture that a page uploaded into `folder`. `payload` holds its "path"; `role` names it in errors.

    Raises `InputError` if it is missing or outside `folder`, and `ImageError` if it is not a picture or is too large.
    No message names a folder of the server.
    """
    from vggfeat.pictures import images

    file = sent_file(payload, role, folder)
    if file.stat().st_size > limits.megabytes * 1_000_000:
        raise ImageError(f"'{file.name}' is larger than the limit of {limits.megabytes} MB")
    return Upload(file, images.decode_picture(file.read_bytes(), name=file.name, max_pixels=limits.pixels))


def sent_file(payload: Mapping[str, str] | None, role: str, folder: Path) -> Path:
    """The file that a page uploaded. Raises `InputError` if it is missing or outside `folder`."""
    if not payload:
        raise InputError(f"there is no {role}: upload a file or choose a sample")
    file = Path(payload["path"]).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise InputError(f"the {role} is no longer on the server: upload it again")
    return file
