"""Look up layers of a network by name, index, glob or block, and their sizes for an image. No torch."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from vggfeat.errors import InputError, LayerError, did_you_mean, similar
from vggfeat.networks.heads import Head, head_layers
from vggfeat.networks.layers import Layer, Pooling, SizedLayer, layers, sized
from vggfeat.networks.plans import Network, network


def find_layers(
    name: str | Network,
    patterns: str | int | Iterable[str | int],
    *,
    pooling: Pooling = "max",
    head: Head | None = None,
    classes: int = 1000,
    hidden: int = 4096,
) -> tuple[Layer, ...]:
    """The layers that match `patterns`, each once, in the order of the network.

    A pattern is a name (`relu3_3`), an index (`features.15`, `15`), a glob (`relu3_*`, `relu?_1`) or a range of blocks
    (`block3`, `block1-3`). A string may hold several patterns, separated by commas. With a `head` (see `head_layers`),
    patterns that match no layer of the features are looked for in the head, also by the names of modules: `fc7`,
    `relu[67]`, `classifier.3`. Raises `LayerError` for a pattern that matches nothing.

    >>> [layer.name for layer in find_layers("vgg16", "relu?_1, 15")]
    ['relu1_1', 'relu2_1', 'relu3_1', 'relu3_3', 'relu4_1', 'relu5_1']
    >>> [layer.name for layer in find_layers("vgg16", "relu5_3,fc*", head="paper")]
    ['relu5_3', 'fc6', 'fc7', 'fc8']
    """
    table = layers(name, pooling=pooling)
    after = head_layers(name, head, classes, hidden=hidden, pooling=pooling)
    name = network(name).name
    if isinstance(patterns, str | int):
        patterns = [patterns]
    wanted = [word.strip() for pattern in patterns for word in str(pattern).split(",") if word.strip()]
    if not wanted:
        raise LayerError(f"no layer of {name} is named: name one, such as relu3_1")
    found: set[int] = set()
    for word in wanted:
        # A glob such as relu* has always meant layers of the features, so the head comes second.
        matches = {layer.index for layer in table if _names(word, layer)} or {
            layer.index for layer in after if fnmatchcase(layer.name, word) or fnmatchcase(layer.module, word)
        }
        if not matches:
            raise LayerError(_unknown_in_head(name, word, table, after) or _unknown(name, word, table))
        found |= matches
    return tuple(layer for layer in (*table, *after) if layer.index in found)


_HEAD = re.compile(r"avgpool|classifier\.\d+|classifier\.\*|fc\S*|relu[67]")
_BLOCKS = re.compile(r"block(\d+)(?:-(\d+))?")


def _names(word: str, layer: Layer) -> bool:
    if blocks := _BLOCKS.fullmatch(word):
        first, last = int(blocks[1]), int(blocks[2] or blocks[1])
        return first <= layer.block <= last
    return word in (str(layer.index), f"features.{layer.index}") or fnmatchcase(layer.name, word)


def _unknown_in_head(name: str, word: str, table: tuple[Layer, ...], after: tuple[Layer, ...]) -> str:
    """The error message for a pattern that means a layer of a head, and matches nothing; empty for others."""
    if not after and _HEAD.fullmatch(word):
        return (
            f"'{word}' is a layer of a classifier, and only features are read here: "
            f"{name} has {table[0].name} to {table[-1].name}"
        )
    if after and word.startswith(("fc", "classifier", "avgpool", "relu6", "relu7")):
        return f"unknown layer '{word}' of {name}: its head has " + ", ".join(
            f"{layer.name} ({layer.module})" if layer.module != layer.name else layer.name for layer in after
        )
    return ""


def _unknown(name: str, word: str, table: tuple[Layer, ...]) -> str:
    """The error message for a pattern that matches nothing, with the nearest names."""
    if word.removeprefix("features.").isdecimal():
        return f"unknown layer '{word}' of {name}: features has 0 to {table[-1].index}"
    if _BLOCKS.fullmatch(word):
        return f"unknown blocks '{word}' of {name}: it has block1 to block{table[-1].block}"
    kind = word.rstrip("0123456789_*?[]").lower()
    names = [layer.name for layer in table if layer.kind == kind]
    if not names:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in table))
        close = similar(word, [layer.name for layer in table])
        hint = did_you_mean(close) if close else f"it has {table[0].name} to {table[-1].name}"
        return f"unknown layer '{word}' of {name}: its kinds are {kinds}; {hint}"
    block = word.lower().removeprefix(kind).partition("_")[0]
    same_block = [other for other in names if other.removeprefix(kind).partition("_")[0] == block]
    if same_block:
        return f"unknown layer '{word}' of {name}: block {block} has {', '.join(same_block)}"
    return f"unknown layer '{word}' of {name}: {kind} layers are {', '.join(names)}"


def sized_layers(
    name: str | Network,
    height: int = 224,
    width: int | None = None,
    *,
    pooling: Pooling = "max",
    last: str | None = None,
    head: Head | None = None,
) -> tuple[SizedLayer, ...]:
    """The layer table for an image of `height` x `width` pixels (square if `width` is left out).

    `last` is the layer that the table ends with, with a `head` also one of the head's. Raises `InputError` if the image
    is too small for it.

    >>> last = sized_layers("vgg16", 224)[-1]
    >>> last.name, last.height, round(last.macs / 1e9, 2)
    ('pool5', 7, 15.35)
    """
    width = height if width is None else width
    table = layers(name, pooling=pooling)
    if last is not None:
        table = (*table, *head_layers(name, head, pooling=pooling))
        table = table[: find_layers(name, last, pooling=pooling, head=head)[-1].index + 1]
    if min(height, width) < table[-1].minimum_size:
        raise InputError(
            f"{height}x{width} is too small for {network(name).name}: "
            f"{table[-1].name} needs at least {table[-1].minimum_size} pixels a side"
        )
    return tuple(sized(table, height, width))


def block_sides(name: str | Network, side: int = 224) -> tuple[int, ...]:
    """The side of a square image, then the side of each block's output.

    >>> block_sides("vgg16", 224)
    (224, 112, 56, 28, 14, 7)
    """
    return (side, *(layer.height for layer in sized_layers(name, side) if layer.kind == "pool"))
