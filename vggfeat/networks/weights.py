"""Pretrained weights: the table, and loading an entry, a file or a state dict.

Weights are those of a network's `features` stack, in float32, under torchvision's keys (`features.0.weight`, ...).
Bundled ones are files of the package `vggfeat_assets`; others are downloaded once, and their features are kept in the
cache folder. On each read, a bundled file is checked against the hash in the table, and a cached one against the
fingerprints of its layers.

>>> from vggfeat import weights
>>> state, entry = weights.load("vgg19")
>>> entry.name, entry.licence, state["features.0.weight"].shape
('oxford', 'CC-BY-4.0', torch.Size([64, 3, 3, 3]))
"""

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast

from vggfeat.errors import InputError, LayerError, WeightsError, users_line
from vggfeat.networks import arch, downloads
from vggfeat.networks.checkpoints import (
    decode,
    fingerprints,
    fit,
    fit_classifier,
    fitting_networks,
    index,
    metadata,
    pack,
    read,
    read_shapes,
    read_state,
)
from vggfeat.networks.downloads import cache_dir, sha256
from vggfeat.networks.naming import with_torchvision_keys
from vggfeat.networks.preprocessing import (
    BYTE_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    OXFORD_MEAN,
    InputOrder,
    Preprocessing,
    Triple,
    check,
    normalisation,
)
from vggfeat.networks.table import (
    DISTS_FILE,
    DISTS_SHA256,
    STLPIPS_FILE,
    STLPIPS_SHA256,
    TABLE,
    WHOLE_FILES,
    WeightsEntry,
    bundled_path,
    entry_of_digest,
    find_entry,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BYTE_STD", "DISTS_FILE", "DISTS_SHA256", "IMAGENET_MEAN", "IMAGENET_STD", "OXFORD_MEAN", "STLPIPS_FILE",
    "STLPIPS_SHA256", "TABLE", "InputOrder", "Preprocessing", "Triple", "WeightsEntry", "WeightsLike", "cache_dir",
    "decode", "file_of", "find_entry", "fingerprints", "load", "load_dists", "load_entry", "load_stlpips", "looks_bgr",
    "metadata", "named_network", "network_for", "pack", "read_state", "shift_tolerant", "verify", "whole",
    "whole_on_disk", "whole_url",
]  # fmt: skip

# The source of weights that record none: their preprocessing is not known.
_UNKNOWN = "a file or a state dict"
# A key of the network in a state dict of the package `stlpips_pytorch`.
_STLPIPS_KEY = re.compile(r"(?:^|\.)net\.slice\d\.(\d+)\.(weight|bias|filt)$")

WeightsLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Tensor] | None"


def load(
    network: str,
    weights: WeightsLike = "default",
    *,
    seed: int = 0,
    depth: int | None = None,
    classifier: bool | None = False,
    **preprocessing: Unpack[Preprocessing],
) -> tuple[dict[str, "Tensor"], WeightsEntry]:
    """The float32 features of a network under torchvision's keys, and the weights entry that describes them.

    `weights`: the name of an entry; the path of a `.pth`, `.pt` or `.safetensors` state dict, or of a `.h5` or `.keras`
    file of Keras or a `.mat` file of MatConvNet, of a whole VGG or of its features; such a state dict itself; or None
    for random weights drawn from `seed`. Of bundled weights, only the first `depth` layers are decoded and returned
    (all if None); others are always returned whole.

    `classifier` adds the tensors of the classifier. It needs a whole network: a file, a state dict, random weights, or
    torchvision's `imagenet1k_v1`, which is downloaded whole; the bundled entries hold features only. None adds it if a
    file or a state dict has one.

    `preprocessing`: `mean`, `std` and `input_order`, see `Preprocessing`. The returned weights always read RGB, and the
    returned entry has the mean and std to use. By default, files of torchvision and the well-known conversions from
    Caffe, `vgg16-00b39a1b.pth` and `vgg19-d01eb7cb.pth`, are recognised by their sha256 whatever their name, files that
    vggfeat wrote record theirs, and those of Keras and MatConvNet have their own, see `formats`. Other files and state
    dicts are assumed to read RGB with ImageNet's mean and std; those that look like BGR cause a warning.

    Raises `WeightsError` for weights that are unknown, cannot be downloaded, do not fit the network, or are not finite,
    and `InputError` for preprocessing that is not possible.

    >>> state, entry = load("vgg16")
    >>> state["features.0.weight"].shape, str(entry)
    (torch.Size([64, 3, 3, 3]), 'vgg16 imagenet1k_v1')
    """
    import torch

    check(preprocessing)
    with torch.device("cpu"):  # whatever the caller's default device is
        if weights is None:
            state = _random(network, seed, head="paper" if classifier else None)
            entry = WeightsEntry(network, f"random, seed {seed}", "", "drawn at random")
            return state, _chosen(entry, preprocessing, fixed="rgb")
        if isinstance(weights, Mapping):
            state = _fitting(weights, network, "the state dict", classifier=classifier)
            entry = WeightsEntry(network, "state dict", "", _UNKNOWN)
            return _in_rgb(state, entry, preprocessing)
        if (path := file_of(weights)) is None:
            entry = find_entry(network, str(weights))
            if classifier:
                path = _whole_file(network, str(weights))
                state = _fitting(read_state(path), network, f"'{path}'", classifier=True)
            else:
                state = load_entry(entry, depth)
            return state, _chosen(entry, preprocessing, fixed="rgb")
        stored, about = read(path)
        state = _fitting(decode(stored), network, f"'{path}'", classifier=classifier)
        if (recorded := about["layers"]) and recorded != fingerprints(network, state):
            raise WeightsError(f"'{path}' is damaged: its layers are not those that were written")
        entry = _entry_of(path, network, about)
        return (state, _chosen(entry, preprocessing, fixed="rgb")) if recorded else _in_rgb(state, entry, preprocessing)


def _fitting(
    state: Mapping[str, "Tensor"], network: str, origin: str, *, classifier: bool | None
) -> dict[str, "Tensor"]:
    """The features in `state` that fit `network`, and the classifier if requested. See `load`."""
    features = fit(state, network, origin)
    if classifier is None:
        classifier = any(key.startswith("classifier.") for key in with_torchvision_keys(state))
    return features | fit_classifier(state, network, origin) if classifier else features


def _whole_file(network: str, name: str) -> Path:
    """Torchvision's file of a whole network. The one of bundled features is downloaded only on request."""
    entry = find_entry(network, name)
    if entry.bundled and name == "default" and whole_url(entry) and whole_on_disk(entry) is None:
        raise WeightsError(
            f"the bundled weights of {network} have no classifier: fetch torchvision's network (about 550 MB) by "
            f"`vggfeat weights fetch {entry.network} --whole`, or pass the file of a whole network"
        )
    return whole(network, name)


def whole_on_disk(entry: WeightsEntry) -> Path | None:
    """Where torchvision's file of the entry's whole network is on this machine, or None."""
    url = whole_url(entry)
    return None if url is None else downloads.on_disk(url.rpartition("/")[2])


def whole_url(entry: WeightsEntry) -> str | None:
    """The address of torchvision's file of the entry's whole network; None if there is none with a classifier."""
    if entry.name != "imagenet1k_v1" or not entry.network.startswith("vgg"):
        return None
    return entry.url or f"https://download.pytorch.org/models/{WHOLE_FILES[entry.network]}"


def _chosen(entry: WeightsEntry, preprocessing: Preprocessing, *, fixed: InputOrder | None = None) -> WeightsEntry:
    """`entry` with what `preprocessing` names. Raises `InputError` if it names another order than a `fixed` one."""
    order = preprocessing.get("input_order") or fixed or entry.input_order
    if fixed and order != fixed:
        raise InputError(f"weights {entry} read RGB: input_order='{order}' is only for files and state dicts")
    mean, std = normalisation(preprocessing.get("mean"), preprocessing.get("std"), (entry.mean, entry.std))
    return replace(entry, mean=mean, std=std, input_order=order)


def _in_rgb(
    state: dict[str, "Tensor"], entry: WeightsEntry, preprocessing: Preprocessing
) -> tuple[dict[str, "Tensor"], WeightsEntry]:
    """Reorder the first convolution's inputs to RGB, if they are BGR. Warns if that is not certain."""
    key, first = next(iter(state.items()))
    found = _chosen(entry, preprocessing)
    known = entry.source != _UNKNOWN
    if preprocessing.get("input_order") is None and not known and looks_bgr(first):
        warnings.warn(
            f"the weights '{entry.name}' look like weights that read BGR: pass input_order='bgr' (--channels bgr) with "
            "the mean and std that they were trained with, or input_order='rgb' if they read RGB",
            stacklevel=users_line(),
        )
    if preprocessing.get("input_order") is None and entry.input_order == "bgr" and looks_bgr(first.flip(1)):
        warnings.warn(
            f"the weights '{entry.name}' are of {entry.source}, whose networks read BGR, but look like weights that "
            "read RGB: pass input_order='rgb' (--channels rgb) with the mean and std that they were trained with, or "
            "input_order='bgr' if they read BGR",
            stacklevel=users_line(),
        )
    if found.input_order == "bgr":
        if not known and (preprocessing.get("mean") is None or preprocessing.get("std") is None):
            warnings.warn(
                f"the weights '{entry.name}' read BGR, but mean and std are not both given, so ImageNet's are used; "
                "weights converted from Caffe have the mean 123.68,116.779,103.939 and the std 1,1,1",
                stacklevel=users_line(),
            )
        state = state | {key: first.flip(1)}
    return state, found


def looks_bgr(weight: "Tensor") -> bool:
    """Whether the weights (O, C, h, w) of a trained first convolution appear to expect the channels as BGR.

    After training on photographs, neighbouring colours have similar filters, and those of red have more energy than
    those of blue: 1.27 (VGG-19), 1.47 (VGG-16) and 1.51 (AlexNet) times as much in the bundled weights.

    >>> looks_bgr(load("vgg16")[0]["features.0.weight"].flip(1))
    True
    """
    import torch

    if weight.shape[1] != 3 or len(weight) < 32:  # too few filters to tell
        return False
    filters = weight.double().transpose(0, 1).flatten(1)
    similar = torch.corrcoef(filters)
    blue, _, red = filters.square().sum(1)
    return bool(similar[0, 1] > 0.3 and similar[1, 2] > 0.3 and red > 1.1 * blue)


def load_entry(entry: WeightsEntry, depth: int | None = None) -> dict[str, "Tensor"]:
    """The float32 features of a weights entry, downloaded if need be. Raises `WeightsError`.

    If `depth` is given, only the first `depth` layers of a bundled entry are decoded and returned. Its file is checked
    as a whole.

    >>> sum(x.numel() for x in load_entry(find_entry("alexnet")).values())
    2469696
    """
    if entry.bundled:
        _check_sha256(entry.path, entry.sha256)
    elif not entry.path.exists():
        _fetch(entry)
    stored = read_state(entry.path)
    if entry.bundled and depth is not None:  # decoding the deep convolutions takes most of the time
        stored = {key: x for key, x in stored.items() if index(key) < depth}
        return fit(decode(stored), entry.network, f"'{entry.path}'", depth)
    state = fit(decode(stored), entry.network, f"'{entry.path}'")
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


def load_stlpips(network: str, source: WeightsLike = "default") -> dict[str, "Tensor"]:
    """The weights of ST-LPIPS: the features under torchvision's keys, and whatever else the file or mapping holds.

    `source`: `default` for the bundled `alexnet`; a file of the package `stlpips_pytorch`, which also has one for
    `vgg16`; or such a state dict.

    Raises `WeightsError` for weights that are not bundled, cannot be read, or do not fit.

    >>> len([key for key in load_stlpips("alexnet") if key.startswith("lin")])
    5
    """
    origin = "the state dict"
    if isinstance(source, Mapping):
        state = dict(source)
    else:
        if source == "default":
            if network != "alexnet":
                raise WeightsError(
                    f"weights of ST-LPIPS on {network} are not bundled, those on alexnet are: pass the file "
                    "stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth of the package stlpips_pytorch 0.0.2"
                )
            source = bundled_path(STLPIPS_FILE)
            _check_sha256(source, STLPIPS_SHA256)
        if source is None:
            raise WeightsError("ST-LPIPS has no random weights: pass 'default', a file or a state dict")
        origin = f"'{source}'"
        state = read_state(Path(source))
    state = shift_tolerant(state, network)
    if not any(key.startswith("features.") for key in state):
        raise WeightsError(f"{origin} is not of a shift-tolerant network: it has no net.sliceN.N.filt")
    return state | _fitting(state, network, origin, classifier=False)


def shift_tolerant(state: Mapping[str, "Tensor"], network: str) -> dict[str, "Tensor"]:
    """A state dict of the package `stlpips_pytorch`, with the features under torchvision's keys.

    Features of a network without blurs, such as those of the package `lpips`, are left out.

    >>> from torch import ones
    >>> state = {f"net.slice1.{number}.{field}": ones(1) for number, field in ((0, "weight"), (0, "bias"), (1, "filt"))}
    >>> list(shift_tolerant({**state, "lin0.model.1.weight": ones(1)}, "alexnet"))
    ['lin0.model.1.weight', 'features.0.weight', 'features.0.bias']
    """
    found = {key: match for key in state if (match := _STLPIPS_KEY.search(key))}
    rest = {key: x for key, x in state.items() if key not in found}
    if not any(match[2] == "filt" for match in found.values()):
        return rest
    numbers = sorted({int(match[1]) for match in found.values() if match[2] == "weight"})
    convolutions = [layer.module for layer in arch.layers(network) if layer.kind == "conv"]
    modules = dict(zip(numbers, convolutions, strict=False))
    return rest | {
        f"{modules.get(int(match[1]), match[1])}.{match[2]}": state[key]
        for key, match in found.items()
        if match[2] != "filt"
    }


def verify(entry: WeightsEntry) -> None:
    """Check the file and every layer's fingerprint of a bundled or cached entry. Raises `WeightsError`.

    >>> verify(find_entry("alexnet"))
    """
    fingerprint = fingerprints(entry.network, load_entry(entry))
    recorded = metadata(entry.path)["layers"]
    if changed := [layer for layer, digest in fingerprint.items() if recorded.get(layer) != digest]:
        raise WeightsError(f"weights {entry} are damaged: '{entry.path}' differs in {', '.join(changed)}")


def whole(network: str, name: str = "imagenet1k_v1") -> Path:
    """The path of torchvision's file of a whole network with its classifier, downloaded once and checked each time.

    Raises `WeightsError` if there is none, or if it cannot be downloaded.
    """
    entry = find_entry(network, name)
    if (url := whole_url(entry)) is None:
        raise WeightsError(f"weights {entry} have no classifier: pass imagenet1k_v1 of a VGG, or a file")
    return downloads.torchvision_file(
        url, cache_dir(), what=f"the whole {entry.network}", hint="bundled are features without a classifier"
    )


def file_of(weights: WeightsLike) -> Path | None:
    """The file that `weights` names, or None if it is not a file.

    >>> file_of("own.pth"), file_of("imagenet1k_v1")
    (PosixPath('own.pth'), None)
    """
    if isinstance(weights, os.PathLike) or (isinstance(weights, str) and _looks_like_a_file(weights)):
        return Path(weights)
    return None


_ENDINGS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".h5", ".hdf5", ".keras", ".mat")


def _looks_like_a_file(text: str) -> bool:
    if Path(text).suffix.lower() in _ENDINGS or os.sep in text:
        return True
    return text != "default" and all(text != entry.name for entry in TABLE) and Path(text).is_file()


def network_for(network: str, weights: WeightsLike) -> str:
    """The name of the network to build; `auto` is the network that `weights` name, see `named_network`.

    If a file records the same network with another slope of its activations, the recorded one is returned. Raises
    `LayerError` for an unknown name, and `WeightsError` for `auto` if the weights name no network.

    >>> network_for("D", "default")
    'D'
    """
    if network == "auto":
        if (named := named_network(weights)) is None:
            raise WeightsError(f"network 'auto': {_nameless(weights)}: name the network, such as vgg16 or 64,M,128,M")
        return named
    known, recorded = arch.network(network), _recorded_network(weights)
    slope = arch.network(recorded).slope if recorded else known.slope
    if recorded and slope != known.slope and arch.same_stack(replace(known, slope=slope), recorded):
        return recorded
    return known.name


def named_network(weights: WeightsLike) -> str | None:
    """The network that a file records, or whose features have the shapes of a file or a state dict; else None.

    No two networks with different layers have the same shapes. Raises `WeightsError` for a file that cannot be read.

    >>> named_network(load("vgg16")[0])
    'vgg16'
    """
    if recorded := _recorded_network(weights):
        return recorded
    path = file_of(weights)
    if path is None and not isinstance(weights, Mapping):
        return None
    state = weights if isinstance(weights, Mapping) else read_shapes(cast("Path", path))
    return next(iter(fitting_networks(state)), None)


def _recorded_network(weights: WeightsLike) -> str | None:
    from vggfeat.networks import formats

    path = file_of(weights)
    try:  # files of Keras and MatConvNet record none
        return arch.network(str(metadata(path)["network"])).name if path and formats.format_of(path) is None else None
    except (KeyError, LayerError):
        return None


def _nameless(weights: WeightsLike) -> str:
    """Why `weights` name no network."""
    if weights is None or (isinstance(weights, str) and file_of(weights) is None):
        return f"only a file or a state dict tells its network, and weights is {weights!r}"
    origin = "the state dict" if isinstance(weights, Mapping) else f"'{weights}'"
    return f"{origin} records no network, and its shapes fit no network that has a name"


def _entry_of(path: Path, network: str, about: Mapping[str, Any]) -> WeightsEntry:
    """The weights entry that describes a file: an entry of the table, or one made from its metadata `about`."""
    if not about["layers"] and (found := entry_of_digest(network, sha256(path))):
        return found
    entries = [entry for entry in TABLE if arch.same_stack(entry.network, network)]
    try:
        mean, std = (cast("Triple", tuple(map(float, about[key]))) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        known = next((entry for entry in entries if entry.name == about.get("weights")), None)
        return known or WeightsEntry(network, path.name, path.name, _UNKNOWN)
    source, order = str(about.get("source") or _UNKNOWN), cast("InputOrder", about.get("input_order", "rgb"))
    return WeightsEntry(network, path.name, path.name, source, "", mean, std, input_order=order)


def _fetch(entry: WeightsEntry) -> None:
    """Download torchvision's file and keep its features in the cache."""
    bundled = ", ".join(str(other) for other in TABLE if other.bundled)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_dir(), prefix=".") as folder:
            file = downloads.torchvision_file(
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


def _random(network: str, seed: int, head: arch.Head | None = None) -> dict[str, "Tensor"]:
    """A network initialised as in torchvision, from a separate generator.

    Convolutions as by He et al. (fan out), linear layers with a standard deviation of 0.01, biases zero.
    """
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
    for key, shape in arch.head_shapes(network, head).items():
        weight = key.endswith("weight")
        state[key] = 0.01 * torch.randn(shape, generator=generator) if weight else torch.zeros(shape)
    return state
