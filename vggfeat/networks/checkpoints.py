"""Read state dicts in the forms that people save, check and write them."""

import argparse
import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

from vggfeat import files
from vggfeat.errors import WeightsError
from vggfeat.networks import arch
from vggfeat.networks.naming import shape_text, unnamed, with_torchvision_keys
from vggfeat.networks.table import WeightsEntry

if TYPE_CHECKING:
    from torch import Tensor

# Keys under which checkpoints keep a state dict. Of other names, the only mapping to tensors is taken.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "params", "net")


def read_state(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a state-dict file, also if the state dict is nested in a checkpoint. Executes nothing in the file.

    Files of Keras and MatConvNet are converted, see `formats`. Raises `WeightsError` for a file that is missing,
    damaged, or not a state dict.
    """
    return _read(path, check=True)[0]


def read(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The results of `read_state` and of `metadata`; files of Keras and MatConvNet are read once."""
    return _read(path, check=True)


def read_shapes(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a state-dict file, for their shapes only. Damage is not found.

    The values in archives of torch and in files of Keras are not read.

    Raises `WeightsError`, see `read_state`.
    """
    return _read(path, check=False)[0]


def _read(path: Path, *, check: bool) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from vggfeat.networks import formats

    try:
        archive = _check_file(path, check=check)
        if (kind := formats.format_of(path)) and check:
            arrays, about = formats.read(path, kind)
            return {key: torch.from_numpy(array) for key, array in arrays.items()}, {"layers": {}, **about}
        if kind:
            shapes = formats.read_shapes(path, kind)
            return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, {"layers": {}}
        if path.suffix.lower() == ".safetensors":
            return load_file(path), metadata(path)
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_harmless()):
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=archive and not check)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read weights '{path}': {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"'{path}' is not a safetensors file, or is truncated ({error})") from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        holds = f"a {refused[1]}, which is not loaded" if refused else "text, or more than tensors"
        raise WeightsError(f"'{path}' is not a state dict: it holds {holds}") from error
    except Exception as error:  # torch.load lets errors of pickle and zipfile through
        raise WeightsError(f"'{path}' is not a state dict, or is truncated ({type(error).__name__})") from error
    if not isinstance(content := _unwrapped(content), Mapping):
        raise WeightsError(f"'{path}' holds a {type(content).__name__}, not a state dict")
    return dict(cast("Mapping[str, Tensor]", content)), metadata(path)


def _harmless() -> list[Any]:
    """Types of settings and metrics that checkpoints hold besides tensors. Loading one executes no code."""
    import numpy as np

    functions = [cast("Any", value).__reduce__()[0] for value in (np.float64(0), np.zeros(1))]
    # Files written with NumPy 1 name these functions by their former module.
    former = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    names = ("bool", "str", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
    kinds = [type(np.dtype(name)) for name in (*names, "float16", "float32", "float64", "complex64", "complex128")]
    # A path of another system can be read, but not used.
    paths = [
        (pure, f"{module}.{name}")
        for pure, name in ((PurePosixPath, "PosixPath"), (PureWindowsPath, "WindowsPath"))
        for module in ("pathlib", "pathlib._local")
    ]
    return [argparse.Namespace, *functions, *former, np.ndarray, np.dtype, *kinds, *paths]


def _check_file(path: Path, *, check: bool) -> bool:
    """Whether a file is an archive. Refuses a folder, a missing or empty file, and with `check` a wrong checksum."""
    if path.is_dir():
        raise WeightsError(f"cannot read weights '{path}': it is a folder")
    if not path.exists():
        raise WeightsError(f"no weights file '{path}'")
    if not path.stat().st_size:
        raise WeightsError(f"'{path}' is empty")
    if path.suffix.lower() == ".safetensors" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if check and (damaged := archive.testzip()):
            raise WeightsError(f"'{path}' is damaged: {damaged} does not match its checksum")
    return True


def _unwrapped(content: object) -> object:
    """The innermost mapping under the keys of `_WRAPPERS`."""
    while isinstance(content, Mapping):
        mapping = cast("Mapping[str, object]", content)
        key = next((key for key in _WRAPPERS if isinstance(mapping.get(key), Mapping)), None)
        found = [value for value in mapping.values() if isinstance(value, Mapping) and _holds_tensors(value)]
        if key is None and (len(found) != 1 or _holds_tensors(mapping)):
            return mapping
        content = found[0] if key is None else mapping[key]
    return content


def _holds_tensors(found: Mapping[str, object]) -> bool:
    import torch

    return any(isinstance(value, torch.Tensor) for value in found.values())


def decode(stored: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Replace each pair `KEY.codes` (uint8) and `KEY.codebook` (float32) by the tensor KEY that they encode."""
    import numpy as np
    import torch

    state = dict(stored)
    for key in [key.removesuffix(".codes") for key in stored if key.endswith(".codes")]:
        codes, codebook = state.pop(f"{key}.codes"), state.pop(f"{key}.codebook")
        # NumPy looks up bytes several times faster than torch, if it need not check their range.
        mode = "clip" if len(codebook) == 256 else "raise"
        state[key] = torch.from_numpy(np.take(codebook.numpy(), codes.numpy(), mode=mode))
    return state


def index(key: str) -> int:
    """The layer that a key of a `features` state dict belongs to.

    >>> index("features.28.weight")
    28
    """
    return int(key.split(".")[1])


def fit(state: Mapping[str, Any], network: str, origin: str, depth: int | None = None) -> dict[str, "Tensor"]:
    """The features in `state`, as float32 under torchvision's keys in their order.

    `state` holds the whole network's features, or, if `depth` is given, those of its first `depth` layers.

    Raises `WeightsError`, which names `origin`, if they do not fit `network` or are not finite.
    """
    import torch

    features = _features(state)
    features |= {key: torch.zeros(shape) for key, shape in _missing_biases(network, features).items()}
    expected = {key: x for key, x in arch.state_shapes(network).items() if depth is None or index(key) < depth}
    came = {key: tuple(tensor.shape) for key, tensor in features.items()}
    if came != expected:
        fitting = fitting_networks(state)
        hint = f"; it fits {', '.join(fitting)}" if fitting else ""
        raise WeightsError(f"{origin} does not fit {network}: {_difference(came, expected)}{hint}")
    if odd := [
        key for key, x in features.items() if not x.is_floating_point() or x.layout != torch.strided or x.is_meta
    ]:
        raise WeightsError(f"{origin} does not fit {network}: {odd[0]} is not an ordinary tensor of floats")
    result = {key: features[key].detach().float().contiguous() for key in expected}
    # The extremes of a tensor that holds a NaN are NaN, and computing them copies nothing.
    if broken := [key for key, x in result.items() if not torch.stack(torch.aminmax(x)).isfinite().all()]:
        raise WeightsError(f"{origin} is damaged: {broken[0]} holds values that are not finite")
    return result


def fit_classifier(state: Mapping[str, Any], network: str, origin: str) -> dict[str, "Tensor"]:
    """The classifier in `state`, as float32 under torchvision's keys.

    Raises `WeightsError`, which names `origin`, if there is none, or one that does not fit `network` or is not finite.
    """
    import torch

    named = {key: x for key, x in with_torchvision_keys(state).items() if key.startswith("classifier.")}
    came = {key: tuple(x.shape) for key, x in named.items()}
    head, classes, hidden = arch.head_of(came, origin)
    if head is None:
        raise WeightsError(f"{no_classifier(state, origin)}: pass the file of a whole network")
    expected = arch.head_shapes(network, head, classes, hidden=hidden)
    if came != expected:
        raise WeightsError(f"the classifier of {origin} does not fit {network}: {_difference(came, expected)}")
    result = {key: named[key].detach().float().contiguous() for key in expected}
    if broken := [key for key, x in result.items() if not torch.stack(torch.aminmax(x)).isfinite().all()]:
        raise WeightsError(f"{origin} has no usable classifier: {broken[0]} holds values that are not finite")
    return result


def no_classifier(state: Mapping[str, Any], origin: str) -> str:
    """The beginning of an error message for weights without a known classifier: the tensors that might be one."""
    if not (others := unnamed(state)):
        return f"{origin} holds features without a classifier"
    texts = [f"{key} ({shape_text(x.shape)})" for key, x in others.items()]
    if len(texts) > 4:
        texts[3:] = [f"{len(texts) - 3} others"]
    return f"{origin} holds features, and its other tensors are no known classifier: {', '.join(texts)}"


def fitting_networks(state: Mapping[str, Any]) -> list[str]:
    """The names of the networks whose features have the shapes of those in `state`. They all have the same layers.

    >>> from vggfeat import weights
    >>> fitting_networks(weights.load("vgg16")[0])
    ['vgg16', 'D']
    """
    features = _features(state)
    came = {key: tuple(x.shape) for key, x in features.items()}
    return [name for name in arch.NETWORKS if came | _missing_biases(name, features) == arch.state_shapes(name)]


def _features(state: Mapping[str, Any]) -> dict[str, "Tensor"]:
    return {
        key: x
        for key, x in with_torchvision_keys(state).items()
        if key.startswith("features.") and not key.endswith("num_batches_tracked")
    }


def _missing_biases(network: str, features: Mapping[str, "Tensor"]) -> dict[str, tuple[int, ...]]:
    """The biases of a batch-normalised network whose convolutions were saved without any."""
    convolutions = [layer for layer in arch.layers(network) if layer.kind == "conv"]
    biases = {f"features.{layer.index}.bias": (layer.channels,) for layer in convolutions}
    return biases if arch.network(network).batch_norm and features and not biases.keys() & features.keys() else {}


def _difference(came: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference between two sets of shapes."""
    if not came:
        return "it holds no tensor called features.N.weight"
    for key, shape in expected.items():
        if key not in came:
            return f"{key} is missing"
        if came[key] != shape:
            return f"{key} is {shape_text(came[key])}, not {shape_text(shape)}"
    return f"it also holds {next(key for key in came if key not in expected)}"


def fingerprints(network: str, state: Mapping[str, "Tensor"]) -> dict[str, str]:
    """{layer: the first 16 hexadecimal digits of the sha256 of its float32 values, in key order}.

    >>> from vggfeat import weights
    >>> state, _ = weights.load("64,M", None, seed=0)
    >>> len(fingerprints("64,M", state)["conv1_1"])
    16
    """
    digests: dict[str, str] = {}
    for layer in arch.layers(network):
        keys = [key for key in arch.state_shapes(network) if key.startswith(f"features.{layer.index}.")]
        if keys:
            digest = hashlib.sha256(b"".join(state[key].contiguous().numpy().tobytes() for key in keys))
            digests[layer.name] = digest.hexdigest()[:16]
    return digests


def write(
    path: Path,
    network: str,
    features: Mapping[str, "Tensor"],
    stored: Mapping[str, "Tensor"],
    **about: Any,
) -> None:
    """Write `stored`, which decodes to `features`, as a safetensors file that records `about` and fingerprints. Atomic.

    The metadata is one JSON text, because safetensors does not define the order of several entries and the same content
    should give the same bytes.
    """
    from safetensors.torch import save

    content = {"network": network, "layers": fingerprints(network, features), **about}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, save(dict(stored), metadata={"vggfeat": json.dumps(content, sort_keys=True)}))


def pack(path: Path, entry: WeightsEntry, features: Mapping[str, "Tensor"], stored: Mapping[str, "Tensor"]) -> None:
    """Write the weights of an entry. See `write`."""
    about = {"weights": entry.name, "source": entry.source, "licence": entry.licence}
    write(path, entry.network, features, stored, **about)


def metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write` recorded in a file; for others `layers` is empty, see also `formats`."""
    from safetensors import SafetensorError, safe_open

    from vggfeat.networks import formats

    if kind := formats.format_of(path):
        return {"layers": {}, **formats.read(path, kind)[1]}
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return {"layers": {}}
    try:
        with safe_open(path, framework="np") as file:
            about = cast("dict[str, str] | None", file.metadata())
        found: Any = json.loads((about or {})["vggfeat"])
        return {**found, "layers": dict(found["layers"])}
    except (KeyError, TypeError, ValueError, OSError, SafetensorError):
        return {"layers": {}}
