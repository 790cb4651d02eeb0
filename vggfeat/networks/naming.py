"""Rename the keys of a VGG's state dict, as people save it, to torchvision's."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vggfeat.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Prefixes that training code adds to torchvision's keys, in any combination.
_PREFIXES = re.compile(r"^(?:(?:module|_orig_mod|model|net|backbone|encoder|_?features)\.)+")
# Linear layers, by torchvision's names: those of timm, of the paper, of pretrainedmodels, and of a single layer.
_HEADS = {
    "pre_logits.fc1": "classifier.0",
    "pre_logits.fc2": "classifier.3",
    "head.fc": "classifier.6",
    "fc6": "classifier.0",
    "fc7": "classifier.3",
    "fc8": "classifier.6",
    "linear0": "classifier.0",
    "linear1": "classifier.3",
    "last_linear": "classifier.6",
    "classifier": "classifier.0",
    "fc": "classifier.0",
    "head": "classifier.0",
    "linear": "classifier.0",
}
# The features of a VGG that is a part of another module, such as `student.features.0.weight`.
_INSIDE = re.compile(r"^((?:\w+\.)+?)(?=(?:features\.(?:(?:module|_orig_mod)\.)*\d+|(?:conv|bn)\d+_\d+)\.)")
_IN_BLOCK = re.compile(r"(conv|bn)(\d+)_(\d+)\.")

Place = tuple[int, int]
"""A convolution's block, and its number in the block, both from 1: `conv3_2` is (3, 2)."""


def feature_indices(convolutions: Iterable[Place], *, batch_norm: bool = False) -> dict[Place, int]:
    """The index of each convolution in torchvision's `features`, if every block but the last ends with a pool.

    >>> feature_indices([(1, 1), (1, 2), (2, 1)])
    {(1, 1): 0, (1, 2): 2, (2, 1): 5}
    """
    indices: dict[Place, int] = {}
    index, block = 0, 0
    for place in sorted(set(convolutions)):
        index += bool(indices) and place[0] != block
        indices[place], block = index, place[0]
        index += 3 if batch_norm else 2
    return indices


def with_torchvision_keys(state: Mapping[str, Any]) -> dict[str, "Tensor"]:
    """The tensors of a VGG's state dict as `features.N.*` and `classifier.N.*`; other entries are left out.

    Prefixes such as `module.` and `_orig_mod.` are removed in any combination, and so is the name of a part of a larger
    module, such as `student.`, if no other part is a VGG. The paper's names (`conv1_1`, `fc6`),
    timm's heads, single linear layers, and classifiers numbered 1, 4, 6 (converted from Caffe) are renamed. Raises
    `WeightsError` if two entries have the same name afterwards.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, name in _names(state).items():
        if name is None:
            continue
        if name in renamed:
            raise WeightsError(f"the state dict holds {name} twice: as {origin[name]} and as {key}")
        renamed[name], origin[name] = state[key], key
    if "classifier.1.weight" in renamed:
        renamed = {re.sub(r"^classifier\.([14])\.", _one_less, key): tensor for key, tensor in renamed.items()}
    # timm's fully connected layers are convolutions.
    return {key: x.flatten(1) if key.startswith("classifier.") and x.ndim > 2 else x for key, x in renamed.items()}


def shape_text(shape: Iterable[int]) -> str:
    """A shape as messages state it.

    >>> shape_text((64, 3, 3, 3))
    '64x3x3x3'
    """
    return "x".join(map(str, shape))


def unnamed(state: Mapping[str, Any]) -> dict[str, "Tensor"]:
    """The tensors of a state dict that `with_torchvision_keys` leaves out.

    >>> import torch
    >>> [*unnamed({"features.0.bias": torch.zeros(8), "projection.weight": torch.zeros(3, 8)})]
    ['projection.weight']
    """
    return {key: state[key] for key, name in _names(state).items() if name is None}


def _names(state: Mapping[str, Any]) -> dict[str, str | None]:
    """Torchvision's name of each tensor in `state`, or None."""
    import torch

    stems = {key: _PREFIXES.sub("", str(key)) for key, x in state.items() if isinstance(x, torch.Tensor)}
    around = {found[1] for stem in stems.values() if (found := _INSIDE.match(stem))}
    if len(around) == 1 and not any(stem[:1].isdecimal() or _IN_BLOCK.match(stem) for stem in stems.values()):
        [prefix] = around
        stems = {key: _PREFIXES.sub("", stem.removeprefix(prefix)) for key, stem in stems.items()}
    places = {key: found for key, stem in stems.items() if (found := _IN_BLOCK.match(stem))}
    indices = feature_indices(
        ((int(found[2]), int(found[3])) for found in places.values()),
        batch_norm=any(found[1] == "bn" for found in places.values()),
    )
    names: dict[str, str | None] = {}
    for key, stem in stems.items():
        if found := places.get(key):
            index = indices[int(found[2]), int(found[3])] + (found[1] == "bn")
            names[key] = f"features.{index}.{stem[found.end() :]}"
        else:
            names[key] = _torchvision_key(stem)
    return names


def _torchvision_key(stem: str) -> str | None:
    layer, _, field = stem.rpartition(".")
    if layer in _HEADS:
        return f"{_HEADS[layer]}.{field}"
    if stem[:1].isdecimal():
        return f"features.{stem}"
    return stem.replace("classifier.module.", "classifier.") if stem.startswith("classifier.") else None


def _one_less(found: re.Match[str]) -> str:
    return f"classifier.{int(found[1]) - 1}."
