"""The one table of weights: where each row comes from, its licence, its preprocessing; and how it is loaded.

A row's weights are those of the `features` stack alone, in float32, under torchvision's key names
(`features.0.weight`, ...). Bundled rows are files of the package `vggfeat_assets`; the others are downloaded once
and kept, features only, in the cache folder. Each time they are read, bundled files are checked against the hash in
the table, cached ones against the fingerprint of every layer that was written with them.
"""

import hashlib
import json
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from vggfeat import files
from vggfeat.errors import LayerError, WeightsError
from vggfeat.networks import arch

if TYPE_CHECKING:
    from torch import Tensor

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
_BYTE_STD: Triple = (1 / 255, 1 / 255, 1 / 255)  # networks trained on 0-255 minus a mean colour
_DOWNLOADS = "https://download.pytorch.org/models/"


@dataclass(frozen=True, slots=True)
class Weights:
    """A row of the table: the pretrained `features` of one network.

    `mean` and `std` are per RGB channel for images in [0, 1]: the network reads `(image - mean) / std`.
    `file` is the name of the bundled file, or of torchvision's file, which ends in the first eight digits of its
    own sha256. `sha256` is that of the bundled file, and empty for a row that is downloaded.
    """

    network: str
    name: str
    file: str
    source: str
    licence: str = "BSD-3-Clause"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.network} {self.name}"

    @property
    def bundled(self) -> bool:
        """Whether the weights ship inside vggfeat."""
        return bool(self.sha256)

    @property
    def url(self) -> str | None:
        """Where the weights are downloaded from; None for bundled ones."""
        return None if self.bundled else _DOWNLOADS + self.file

    @property
    def path(self) -> Path:
        """Where the features are on this machine, or will be once they are downloaded."""
        if self.bundled:
            return _bundled(self.file)
        return cache_dir() / f"{self.network}-{self.name}.safetensors"

    @property
    def status(self) -> Literal["bundled", "cached", "to be downloaded"]:
        """Whether loading the row would download it."""
        if self.bundled:
            return "bundled"
        return "cached" if self.path.exists() else "to be downloaded"

    @property
    def size(self) -> int:
        """Bytes of the features as they are kept on disk."""
        if self.status == "to be downloaded":
            return 4 * sum(map(prod, arch.state_shapes(self.network).values()))
        return self.path.stat().st_size


_TORCHVISION = "torchvision IMAGENET1K_V1"

TABLE: tuple[Weights, ...] = (
    Weights(
        network="vgg16",
        name="imagenet1k_v1",
        file="vgg16-imagenet1k_v1.safetensors",
        source=_TORCHVISION,
        sha256="7dc6328ec55b42736a3e982368f46793507f83f918e436ba0cd6bbb7a2efb8bc",
    ),
    Weights(
        network="vgg19",
        name="oxford",
        file="vgg19-oxford.safetensors",
        source="Simonyan & Zisserman, coded to 256 values a layer",
        licence="CC-BY-4.0",
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
        std=_BYTE_STD,
        sha256="d6c239f22273d1a5fd9038b6316d54bf391c9f0a04e6fe62bcb0aebf61df6bb4",
    ),
    Weights(
        network="alexnet",
        name="imagenet1k_v1",
        file="alexnet-imagenet1k_v1.safetensors",
        source=_TORCHVISION,
        sha256="b243b3b26ab6c7d55af770afea372013278ecf9d686152ac9d2b4025cb8c82f2",
    ),
    Weights(
        network="vgg16",
        name="oxford",
        file="vgg16_features-amdegroot-88682ab5.pth",
        source="torchvision IMAGENET1K_FEATURES",
        mean=(0.48235, 0.45882, 0.40784),
        std=_BYTE_STD,
    ),
    Weights("vgg11", "imagenet1k_v1", "vgg11-8a719046.pth", _TORCHVISION),
    Weights("vgg13", "imagenet1k_v1", "vgg13-19584684.pth", _TORCHVISION),
    Weights("vgg19", "imagenet1k_v1", "vgg19-dcbb9e9d.pth", _TORCHVISION),
    Weights("vgg11_bn", "imagenet1k_v1", "vgg11_bn-6002323d.pth", _TORCHVISION),
    Weights("vgg13_bn", "imagenet1k_v1", "vgg13_bn-abd245e5.pth", _TORCHVISION),
    Weights("vgg16_bn", "imagenet1k_v1", "vgg16_bn-6c64b313.pth", _TORCHVISION),
    Weights("vgg19_bn", "imagenet1k_v1", "vgg19_bn-c79401a0.pth", _TORCHVISION),
)


DISTS_FILE = "dists.safetensors"
DISTS_SHA256 = "745cdae1b30c00fe14c81d72f852015ae5c33dc3d83c49d4c928295c1cfc4ce9"


def load_dists() -> dict[str, "Tensor"]:
    """The weights of DISTS, `alpha` for texture and `beta` for structure: (1475,) each, the image's channels first."""
    path = _bundled(DISTS_FILE)
    _check_sha256(path, DISTS_SHA256)
    return read_state(path)


def cache_dir() -> Path:
    """The folder that keeps downloads: `$VGGFEAT_CACHE`, else `vggfeat` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("VGGFEAT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vggfeat"


WeightsLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Tensor] | None"


def find(network: str, name: str = "default") -> Weights:
    """The row `name` of a network; `default` is its first row. Raises `WeightsError` where there is none.

    The paper's names share the rows of their twins: `D` has those of `vgg16`.
    """
    rows = [row for row in TABLE if _same_stack(row.network, network)]
    for row in rows:
        if name in ("default", row.name):
            return row
    if not rows:
        raise WeightsError(f"no pretrained weights of {network} exist: pass a file, or weights=None for random ones")
    raise WeightsError(f"unknown weights '{name}' of {network}: known are {', '.join(row.name for row in rows)}, "
                       "a .pth or .safetensors file, or None")  # fmt: skip


def _same_stack(one: str, other: str) -> bool:
    a, b = arch.network(one), arch.network(other)
    return replace(a, name=b.name) == b


def load(
    network: str, weights: "str | os.PathLike[str] | Mapping[str, Tensor] | None" = "default", *, seed: int = 0
) -> tuple[dict[str, "Tensor"], Weights]:
    """The float32 features of a network by torchvision's key names, and the row that says what they are.

    `weights`: a row's name, the path of a `.pth`, `.pt` or `.safetensors` state dict (of a whole VGG or of its
    features), such a state dict itself, or None for random ones drawn from `seed`. What comes from a file or a
    mapping is taken to read ImageNet's mean and std. Raises `WeightsError` for weights that are unknown, cannot be
    had, or do not fit the network.
    """
    if weights is None:
        return _random(network, seed), Weights(network, f"random, seed {seed}", "", "drawn at random")
    if isinstance(weights, Mapping):
        return _fit(weights, network, "the state dict"), Weights(network, "state dict", "", "given as a mapping")
    if path := file_of(weights):
        state = _fit(decode(read_state(path)), network, f"'{path}'")
        if (recorded := metadata(path)["layers"]) and recorded != fingerprints(network, state):
            raise WeightsError(f"'{path}' is damaged: its layers are not those that were written")
        return state, _row_of(path, network)
    row = find(network, cast("str", weights))
    return _load_row(row), row


def _row_of(path: Path, network: str) -> Weights:
    """What a file of weights is: the row of the table that it holds, or what `network.save` wrote in it."""
    about = metadata(path)
    for row in TABLE:
        if _same_stack(row.network, network) and row.file == path.name:
            return row
    try:
        mean, std = (cast("Triple", tuple(map(float, about[key]))) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    else:
        return Weights(network, path.name, path.name, str(about.get("source")) or "a file", "", mean, std)
    for row in TABLE:
        if _same_stack(row.network, network) and row.name == about.get("weights"):
            return row
    return Weights(network, path.name, path.name, "a file")


def network_for(network: str, weights: "str | os.PathLike[str] | Mapping[str, Tensor] | None") -> str:
    """The name of the network that is meant: `auto` is the one that the file `weights` names.

    Where a file says that its activations are leaky, so are those of the `network` that it is read for. Raises
    `LayerError` for an unknown name, `WeightsError` for `auto` where nothing says which.
    """
    text = named_network(weights)
    named = arch.network(text) if text else None
    if network == "auto":
        if named is None:
            raise WeightsError(f"network 'auto': '{weights}' does not say which network it holds, name it")
        return named.name
    row = arch.network(network)
    if named and replace(named, name=row.name, slope=row.slope) == row and named.slope != row.slope:
        return named.name
    return row.name


def named_network(weights: "str | os.PathLike[str] | Mapping[str, Tensor] | None") -> str | None:
    """The name of the network that the file `weights` says it holds, if it is a file and says so."""
    path = file_of(weights)
    try:
        return arch.network(str(metadata(path)["network"])).name if path else None
    except (KeyError, LayerError):
        return None


def file_of(weights: "str | os.PathLike[str] | Mapping[str, Tensor] | None") -> Path | None:
    """The file that `weights` names, if it names one."""
    if isinstance(weights, os.PathLike) or (isinstance(weights, str) and _looks_like_a_file(weights)):
        return Path(weights)
    return None


def _looks_like_a_file(text: str) -> bool:
    return Path(text).suffix.lower() in (".pth", ".pt", ".safetensors", ".ckpt", ".bin") or os.sep in text


def verify(row: Weights) -> None:
    """Check a bundled or cached row: its file's hash, and every layer's fingerprint. Raises `WeightsError`."""
    fingerprint = fingerprints(row.network, _load_row(row))
    recorded = metadata(row.path)["layers"]
    if changed := [layer for layer, digest in fingerprint.items() if recorded.get(layer) != digest]:
        raise WeightsError(f"weights {row} are not what was packed: {', '.join(changed)} differ in '{row.path}'")


def fingerprints(network: str, state: Mapping[str, "Tensor"]) -> dict[str, str]:
    """The first 16 hexadecimal digits of the sha256 of each layer's decoded float32 values, in key order."""
    digests: dict[str, str] = {}
    for layer in arch.layers(network):
        keys = [key for key in arch.state_shapes(network) if key.startswith(f"features.{layer.index}.")]
        if keys:
            digest = hashlib.sha256(b"".join(state[key].contiguous().numpy().tobytes() for key in keys))
            digests[layer.name] = digest.hexdigest()[:16]
    return digests


def _load_row(row: Weights) -> dict[str, "Tensor"]:
    if not row.bundled and not row.path.exists():
        _fetch(row)
    if row.bundled:
        _check_sha256(row.path, row.sha256)
    state = _fit(decode(read_state(row.path)), row.network, f"'{row.path}'")
    if not row.bundled and fingerprints(row.network, state) != metadata(row.path).get("layers"):
        raise WeightsError(f"'{row.path}' is damaged: delete it, and it will be downloaded again")
    return state


def _bundled(file: str) -> Path:
    return Path(str(resources.files("vggfeat_assets"))) / "weights" / file


def _check_sha256(path: Path, stated: str) -> None:
    if (digest := _sha256(path)) != stated:
        raise WeightsError(f"'{path}' is damaged: its sha256 is {digest[:16]}..., not {stated[:16]}...")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read weights '{path}': {error.strerror}") from error


def read_state(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a state-dict file, also one wrapped as `state_dict` or `model`. Nothing in it is ever executed.

    Raises `WeightsError` for what is missing, damaged, or no state dict.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType] (untyped upstream)

    try:
        _check_file(path)
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols, which say nothing to a user
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read weights '{path}': {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"'{path}' is not a safetensors file, or is truncated ({error})") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(f"'{path}' is not a state dict: it holds text, or more than tensors") from error
    except Exception as error:  # torch.load lets through whatever unpickling and unzipping raise
        raise WeightsError(f"'{path}' is not a state dict, or is truncated ({type(error).__name__})") from error
    for wrapper in ("state_dict", "model"):
        content = _unwrapped(content, wrapper)
    if not isinstance(content, Mapping):
        raise WeightsError(f"'{path}' holds a {type(content).__name__}, not a state dict")
    return dict(cast("Mapping[str, Tensor]", content))


def _check_file(path: Path) -> None:
    """Refuse what is no file, is empty, or is an archive whose checksums do not hold."""
    if path.is_dir():
        raise WeightsError(f"cannot read weights '{path}': it is a folder")
    if not path.exists():
        raise WeightsError(f"no weights file '{path}'")
    if not path.stat().st_size:
        raise WeightsError(f"'{path}' is empty")
    if path.suffix.lower() != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise WeightsError(f"'{path}' is damaged: {damaged} does not match its checksum")


def _unwrapped(content: Any, wrapper: str) -> Any:  # noqa: ANN401 (whatever a file holds)
    if isinstance(content, Mapping):
        inner = cast("Mapping[str, Any]", content).get(wrapper)
        if isinstance(inner, Mapping):
            return cast("Mapping[str, Any]", inner)
    return cast("Any", content)


def decode(stored: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Each pair `KEY.codes` (uint8) and `KEY.codebook` (float32) becomes the tensor KEY that it stands for."""
    import numpy as np
    import torch

    state = dict(stored)
    for key in [key.removesuffix(".codes") for key in stored if key.endswith(".codes")]:
        codes, codebook = state.pop(f"{key}.codes"), state.pop(f"{key}.codebook")
        # Numpy looks bytes up several times faster than torch does, where it need not check them.
        mode = "clip" if len(codebook) == 256 else "raise"
        state[key] = torch.from_numpy(np.take(codebook.numpy(), codes.numpy(), mode=mode))  # pyright: ignore[reportUnknownMemberType] (torch's stub)
    return state


def _fit(state: Mapping[str, Any], network: str, origin: str) -> dict[str, "Tensor"]:
    """The features among `state`, as float32 in key order. Raises `WeightsError` where they are not `network`'s."""
    import torch

    features = _features_of(state)
    expected = arch.state_shapes(network)
    came = {key: tuple(tensor.shape) for key, tensor in features.items()}
    if came != expected:
        fitting = [name for name in arch.NETWORKS if arch.state_shapes(name) == came]
        hint = f"; it fits {', '.join(fitting)}" if fitting else ""
        raise WeightsError(f"{origin} does not fit {network}: {_difference(came, expected)}{hint}")
    if odd := [
        key for key, x in features.items() if not x.is_floating_point() or x.layout != torch.strided or x.is_meta
    ]:
        raise WeightsError(f"{origin} does not fit {network}: {odd[0]} is not an ordinary tensor of floats")
    result = {key: features[key].detach().float().contiguous() for key in expected}
    # The extremes of what holds a NaN are NaN, and they need no copy of the size of the weights.
    if broken := [key for key, x in result.items() if not torch.stack(torch.aminmax(x)).isfinite().all()]:
        raise WeightsError(f"{origin} is damaged: {broken[0]} holds values that are not finite")
    return result


def _features_of(state: Mapping[str, Any]) -> dict[str, "Tensor"]:
    """Rename to `features.N.*`: a whole network's state dict, one wrapped by DDP, or that of `features` itself."""
    import torch

    features: dict[str, Tensor] = {}
    for key, value in state.items():
        stem = str(key).removeprefix("module.").removeprefix("features.")
        if stem[:1].isdecimal() and isinstance(value, torch.Tensor) and not stem.endswith("num_batches_tracked"):
            features[f"features.{stem}"] = value
    return features


def _difference(came: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first thing that two sets of shapes disagree on."""
    if not came:
        return "it holds no tensor called features.N.weight"
    for key, shape in expected.items():
        if key not in came:
            return f"{key} is missing"
        if came[key] != shape:
            return f"{key} is {_times(came[key])}, not {_times(shape)}"
    return f"it also holds {next(key for key in came if key not in expected)}"


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _random(network: str, seed: int) -> dict[str, "Tensor"]:
    """Features initialised as torchvision does (He et al., fan out, zero bias), from a generator of their own."""
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


def pack(path: Path, row: Weights, features: Mapping[str, "Tensor"], stored: Mapping[str, "Tensor"]) -> None:
    """Write `stored`, which decodes to `features`, as a safetensors file that says what it is. Atomic.

    The metadata is one JSON text, since the order of several entries is not defined and the file would not be
    the same twice.
    """
    from safetensors.torch import save

    about = {
        "network": row.network,
        "weights": row.name,
        "source": row.source,
        "licence": row.licence,
        "layers": fingerprints(row.network, features),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, save(dict(stored), metadata={"vggfeat": json.dumps(about, sort_keys=True)}))


def metadata(path: Path) -> dict[str, Any]:
    """What `pack` or `network.save` wrote about a file; no `layers` for a file that neither wrote."""
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return {"layers": {}}
    try:
        with safe_open(path, framework="np") as file:  # pyright: ignore[reportUnknownVariableType] (untyped upstream)
            about = cast("dict[str, str] | None", file.metadata())  # pyright: ignore[reportUnknownMemberType]
        found: Any = json.loads((about or {})["vggfeat"])
        return {**found, "layers": dict(found["layers"])}
    except (KeyError, TypeError, ValueError, OSError, SafetensorError):
        return {"layers": {}}


def _fetch(row: Weights) -> None:
    """Bring a row into the cache: from a file of torchvision's that is already here, else by download."""
    places = [cache_dir() / row.file, _torch_downloads() / row.file]
    if here := next((place for place in places if place.is_file()), None):
        _convert(here, row, _sha256(here))
        return
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_dir(), prefix=".") as folder:
            file = Path(folder) / row.file
            _convert(file, row, _download(cast("str", row.url), file))
    except OSError as error:  # of which urllib's errors are children
        bundled = ", ".join(str(other) for other in TABLE if other.bundled)
        reason = getattr(error, "reason", None) or error.strerror or error
        raise WeightsError(
            f"weights {row} are not bundled and could not be downloaded ({reason}); bundled are {bundled}; "
            f"or put torchvision's {row.file} into '{cache_dir()}', or pass a file's path"
        ) from error


def whole(network: str, name: str = "imagenet1k_v1") -> Path:
    """Torchvision's file of a whole network, its classifier included: downloaded once, checked against its hash.

    Raises `WeightsError` where there is none, or it cannot be had.
    """
    row = find(network, name)
    if row.name != "imagenet1k_v1" or row.network == "alexnet":
        raise WeightsError(f"weights {row} have no classifier: those that do are imagenet1k_v1 of a VGG, or a file")
    from torchvision.models import get_model_weights  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType] (untyped upstream)

    url = cast("str", get_model_weights(row.network)["IMAGENET1K_V1"].url)
    file = url.rpartition("/")[2]
    path = cache_dir() / file
    places = [path, _torch_downloads() / file]
    if here := next((place for place in places if place.is_file()), None):
        _check_name(here, file, _sha256(here))
        return here
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            _check_name(Path(file), file, _download(url, temporary))
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise WeightsError(
            f"the whole {row.network} could not be downloaded ({reason}): what is bundled are features, without a "
            f"classifier; put torchvision's {file} into '{cache_dir()}', or pass a file's path"
        ) from error
    return path


def _torch_downloads() -> Path:
    """The folder in which torch keeps what torchvision downloads."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(url: str, path: Path) -> str:
    """Fetch `url` into `path`, with a progress bar where standard error is a terminal. Returns the sha256."""
    from urllib.request import urlopen

    from rich.console import Console
    from rich.progress import wrap_file

    console = Console(file=sys.stderr)
    digest = hashlib.sha256()
    with urlopen(url, timeout=30) as answer, path.open("wb") as file:  # noqa: S310 (the table's own https addresses)
        length = int(answer.headers.get("Content-Length", 0))
        with wrap_file(answer, length, description=path.name, console=console, disable=not console.is_terminal) as body:
            while chunk := body.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()


def _convert(file: Path, row: Weights, digest: str) -> None:
    """Keep the features of torchvision's `file`."""
    _check_name(file, row.file, digest)
    features = _fit(read_state(file), row.network, f"'{file}'")
    pack(row.path, row, features, features)


def _check_name(file: Path, name: str, digest: str) -> None:
    """Torchvision's file names end in the first digits of their sha256. Raises `WeightsError` where they do not."""
    stated = Path(name).stem.rpartition("-")[2]
    if not digest.startswith(stated):
        raise WeightsError(f"'{file}' is not torchvision's: its sha256 begins with {digest[:8]}, not {stated}")
