"""The functions on pictures that other folders import."""

from vggfeat.pictures.metadata import Metadata
from vggfeat.pictures.reading import (
    Picture,
    decode_picture,
    flatten,
    from_pil,
    opened,
    pixel_limit,
    read_bytes,
    read_metadata,
    read_picture,
    read_side,
    read_text,
)
from vggfeat.pictures.resizing import fit, middle, middle_square, resize
from vggfeat.pictures.writing import check_writable, left_out, to_pil, writable, write_picture

__all__ = [
    "Metadata",
    "Picture",
    "check_writable",
    "decode_picture",
    "fit",
    "flatten",
    "from_pil",
    "left_out",
    "middle",
    "middle_square",
    "opened",
    "pixel_limit",
    "read_bytes",
    "read_metadata",
    "read_picture",
    "read_side",
    "read_text",
    "resize",
    "to_pil",
    "writable",
    "write_picture",
]
