"""Pretrained weights: the table, and loading an entry, a file or a state dict.

Weights are those of a network's `features` stack, in float32, under torchvision's keys (`features.0.weight`, ...).
Bundled ones are files of the package `vggfeat_assets`; others are downloaded once, and their features are kept in the
cache folder. On each read, a bundled file is checked against the hash in the table, and a cached one against the
fingerprints of its layers.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias, cast

from vggfeat.errors import LayerError, WeightsError
from vggfeat.networks import arch
from vggfeat.networks.checkpoints import decode, fingerprints, fit, metadata, pack, read_state
from vggfeat.networks.downloads import cache_dir, sha256, torchvision_file
from vggfeat.networks.table import DISTS_FILE, DISTS_SHA256, TABLE, Triple, WeightsEntry, bundled_path, find_entry
from vggfeat.networks.table import IMAGENET_MEAN as IMAGENET_MEAN
from vggfeat.networks.table import IMAGENET_STD as IMAGENET_STD

if TYPE_CHECKING:
    from torch import Tensor

WeightsLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Tensor] | None"


def load(network: str, weights: WeightsLike = "default", *, seed: int = 0) -> tuple[dict[str, "Tensor"], WeightsEntry]:
    """The float32 features of a network under torchvision's keys, and the weights entry that describes them.

    `weights`: the name of an entry; the path of a `.pth`, `.pt` or `.safetensors` state dict, of a whole VGG or of its
    features; such a state dict itself; or None for random weights drawn from `seed`. Files and state dicts that record
    no preprocessing are assumed to use ImageNet's mean and std. Raises `WeightsError` for weights that are unknown,
    cannot be downloaded, or do not fit the network.

    >>> state, entry = load("vgg16")
    >>> state["features.0.weight"].shape, str(entry)
    (torch.Size([64, 3, 3, 3]), 'vgg16 imagenet1k_v1')
    """
    if weights is None:
        return _random(network, seed), WeightsEntry(network, f"random, seed {seed}", "", "drawn at random")
    if isinstance(weights, Mapping):
        return fit(weights, network, "the state dict"), WeightsEntry(network, "state dict", "", "given as a mapping")
    if path := file_of(weights):
        state = fit(decode(read_state(path)), network, f"'{path}'")
        if (recorded := metadata(path)["layers"]) and recorded != fingerprints(network, state):
            raise WeightsError(f"'{path}' is damaged: its layers are not those that were written")
        return state, _entry_of(path, network)
    entry = find_entry(network, str(weights))
    return load_entry(entry), entry


def load_entry(entry: WeightsEntry) -> dict[str, "Tensor"]:
    """The float32 features of a weights entry, downloaded if need be. Raises `WeightsError`.

    >>> sum(x.numel() for x in load_entry(find_entry("alexnet")).values())
    2469696
    """
    if entry.bundled:
        _check_sha256(entry.path, entry.sha256)
    elif not entry.path.exists():
        _fetch(entry)
    state = fit(decode(read_state(entry.path)), entry.network, f"'{entry.path}'")
    if not entry.bundled and fingerprints(entry.network, state) != metadata(entry.path).get("layers"):
        raise WeightsError(f"'{entry.path}' is damaged: delete it, and it will be downloaded again")
    return state


def load_dists() -> dict[str, "Tensor"]:
    """The weights of DISTS, `alpha` for texture and `beta` for structure: (1475,) each, the image's channels first.

    >>> {key: tuple(x.shape) for key, x in sorted(load_dists().items())}
    {'alpha': (1475,), 'beta': (1475,)}
    """
    path = bundled_path(DISTS_FILE)
    _check_sha256(path, DISTS_SHA256)
    return read_state(path)


def verify(entry: WeightsEntry) -> None:
    """Check the file and every layer's fingerprint of a bundled or cached entry. Raises `WeightsError`.

    >>> verify(find_entry("alexnet"))
    """
    fingerprint = fingerprints(entry.network, load_entry(entry))
    recorded = metadata(entry.path)["layers"]
    if changed := [layer for layer, digest in fingerprint.items() if recorded.get(layer) != digest]:
        raise WeightsError(f"weights {entry} are not what was packed: {', '.join(changed)} differ in '{entry.path}'")


def whole(network: str, name: str = "imagenet1k_v1") -> Path:
    """The path of torchvision's file of a whole network with its classifier, downloaded once and checked each time.

    Raises `WeightsError` if there is none, or if it cannot be downloaded.
    """
    entry = find_entry(network, name)
    if entry.name != "imagenet1k_v1" or entry.network == "alexnet":
        raise WeightsError(f"weights {entry} have no classifier: those that do are imagenet1k_v1 of a VGG, or a file")
    from torchvision.models import get_model_weights  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType] (untyped upstream)

    return torchvision_file(
        cast("str", get_model_weights(entry.network)["IMAGENET1K_V1"].url),
        cache_dir(),
        what=f"the whole {entry.network}",
        hint="bundled are features without a classifier",
    )


def file_of(weights: WeightsLike) -> Path | None:
    """The file that `weights` names, or None if it is not a file.

    >>> file_of("own.pth"), file_of("imagenet1k_v1")
    (PosixPath('own.pth'), None)
    """
    if isinstance(weights, os.PathLike) or (isinstance(weights, str) and _looks_like_a_file(weights)):
        return Path(weights)
    return None


def _looks_like_a_file(text: str) -> bool:
    if Path(text).suffix.lower() in (".pth", ".pt", ".safetensors", ".ckpt", ".bin") or os.sep in text:
        return True
    return text != "default" and all(text != entry.name for entry in TABLE) and Path(text).is_file()


def network_for(network: str, weights: WeightsLike) -> str:
    """The name of the network to build; `auto` is the network that the file `weights` records.

    If the file records the same network with leaky activations, that is the network. Raises `LayerError` for an unknown
    name, and `WeightsError` for `auto` if the file records no network.

    >>> network_for("D", "default")
    'D'
    """
    recorded = named_network(weights)
    if network == "auto":
        if recorded is None:
            raise WeightsError(f"network 'auto': '{weights}' does not say which network it holds, name it")
        return recorded
    known = arch.network(network)
    slope = arch.network(recorded).slope if recorded else known.slope
    if recorded and slope != known.slope and arch.same_stack(replace(known, slope=slope), recorded):
        return recorded
    return known.name


def named_network(weights: WeightsLike) -> str | None:
    """The name of the network that the file `weights` records; None if it records none or is not a file."""
    path = file_of(weights)
    try:
        return arch.network(str(metadata(path)["network"])).name if path else None
    except (KeyError, LayerError):
        return None


def _entry_of(path: Path, network: str) -> WeightsEntry:
    """The weights entry that describes a file: an entry of the table, or one made from the file's metadata."""
    about = metadata(path)
    entries = [entry for entry in TABLE if arch.same_stack(entry.network, network)]
    for entry in entries:
        if entry.file == path.name:
            return entry
    try:
        mean, std = (cast("Triple", tuple(map(float, about[key]))) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        known = next((entry for entry in entries if entry.name == about.get("weights")), None)
        return known or WeightsEntry(network, path.name, path.name, "a file")
    return WeightsEntry(network, path.name, path.name, str(about.get("source") or "a file"), "", mean, std)


def _fetch(entry: WeightsEntry) -> None:
    """Put the features of torchvision's file into the cache."""
    bundled = ", ".join(str(other) for other in TABLE if other.bundled)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_dir(), prefix=".") as folder:
            file = torchvision_file(
                cast("str", entry.url),
                Path(folder),
                what=f"weights {entry} are not bundled and",
                hint=f"bundled are {bundled}",
            )
            features = fit(read_state(file), entry.network, f"'{file}'")
            pack(entry.path, entry, features, features)
    except OSError as error:
        raise WeightsError(
            f"weights {entry} cannot be kept in '{cache_dir()}' ({error.strerror or error}): set VGGFEAT_CACHE"
        ) from error


def _check_sha256(path: Path, stated: str) -> None:
    if (digest := sha256(path)) != stated:
        raise WeightsError(f"'{path}' is damaged: its sha256 is {digest[:16]}..., not {stated[:16]}...")


def _random(network: str, seed: int) -> dict[str, "Tensor"]:
    """Features initialised as in torchvision (He et al., fan out, zero bias), from a generator of their own."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    kinds = {layer.index: layer.kind for layer in arch.layers(network)}
    state: dict[str, Tensor] = {}
    for key, shape in arch.state_shapes(network).items():
        _, index, field = key.split(".")
        if field == "weight" and kinds[int(index)] == "conv":
            state[key] = torch.randn(shape, generator=generator) * (2 / (shape[0] * shape[2] * shape[3])) ** 0.5
        else:
            state[key] = torch.ones(shape) if field in ("weight", "running_var") else torch.zeros(shape)
    return state
