"""How a picture is divided into tiles, and the geometry of one tile."""

from typing import NamedTuple

from torch import Tensor

from vggfeat.pictures import padding

# Channels of a VGG network's first part.
_FIRST_CHANNELS = 64


class Blocks(NamedTuple):
    """How a picture is divided.

    Args:
        side: side of a tile in pixels of the picture. Parts with more channels use tiles of fewer positions.
        tiled: how many of the network's first parts run in tiles, each of them twice; None for all.
    """

    side: int
    tiled: int | None = None

    def side_in(self, channels: int) -> int:
        """Side of a tile, in positions of a part with `channels` channels: even, with about as many values."""
        return 2 * max(4, round(self.side / 2 * (_FIRST_CHANNELS / channels) ** 0.5))


class Tile(NamedTuple):
    """A rectangle of a plane: rows `top` to `bottom` and columns `left` to `right`, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def covering(cls, plane: Tensor) -> "Tile":
        """The tile that covers the whole plane (N, C, H, W)."""
        return cls(0, plane.shape[2], 0, plane.shape[3])

    def grown(self, halo: int, height: int, width: int) -> "Tile":
        """The tile extended by `halo` on each side, clipped to a plane of `height` x `width`."""
        return Tile(self.top - halo, self.bottom + halo, self.left - halo, self.right + halo).within(
            Tile(0, height, 0, width)
        )

    def shrunk(self, step: int, height: int, width: int) -> "Tile":
        """The tile after a layer of stride `step` whose output is `height` x `width`."""
        return Tile(
            self.top // step,
            min(height, -(-self.bottom // step)),
            self.left // step,
            min(width, -(-self.right // step)),
        )

    def within(self, other: "Tile") -> "Tile":
        """The intersection with `other`."""
        return Tile(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def relative_to(self, origin: "Tile") -> "Tile":
        """The same tile in coordinates that start at the top left corner of `origin`."""
        return Tile(self.top - origin.top, self.bottom - origin.top, self.left - origin.left, self.right - origin.left)

    def view(self, plane: Tensor) -> Tensor:
        """The tile of a plane (N, C, H, W), as a view to read or write."""
        return plane[:, :, self.top : self.bottom, self.left : self.right]

    def crop(self, features: Tensor) -> Tensor:
        """The tile of features (N, C, H, W), as a view whose gradient keeps the memory layout."""
        return padding.window(features, *self)

    @property
    def area(self) -> int:
        """Number of positions; 0 if the tile is empty."""
        return max(0, self.bottom - self.top) * max(0, self.right - self.left)
