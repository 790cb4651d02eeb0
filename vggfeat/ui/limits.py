"""What a page may ask for, and how what it sends is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.errors import ImageError, InputError

if TYPE_CHECKING:
    from vggfeat.pictures.images import Picture


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a page may ask for.

    `megabytes` and `pixels`: of a file that is sent. `size`: the long side of a painted picture. `steps`: of a stage.
    `waiting`: jobs in the queue. `looked`: the long side at which pictures are explored and compared.
    """

    megabytes: int = 32
    pixels: int = 40_000_000
    size: int = 2048
    steps: int = 1000
    waiting: int = 16
    looked: int = 768


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that a page sent: its file here, and the name that it had there."""

    path: Path
    picture: "Picture"

    @property
    def name(self) -> str:
        """The name without folders."""
        return self.path.name


def read_upload(path: str | None, role: str, folder: Path, limits: Limits) -> Upload:
    """Read a picture that a page sent to `folder`. `role` names it where there is none.

    Raises `InputError` for none, and for a file that lies anywhere else; `ImageError`, which names no folder, for what
    is no picture or too large.
    """
    from vggfeat.pictures import images

    file = sent_file(path, role, folder)
    if file.stat().st_size > limits.megabytes * 1_000_000:
        raise ImageError(f"'{file.name}' has more than {limits.megabytes} MB")
    return Upload(file, images.decode_picture(file.read_bytes(), name=file.name, max_pixels=limits.pixels))


def sent_file(path: str | None, role: str, folder: Path) -> Path:
    """The file that a page sent. Raises `InputError` for none, and for one that is not in `folder`."""
    if not path:
        raise InputError(f"there is no {role}: drop a picture, or choose one")
    file = Path(path).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise InputError(f"the {role} is no longer here: drop it again")
    return file
