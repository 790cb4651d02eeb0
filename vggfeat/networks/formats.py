"""Read VGG weights of Keras (`.h5`, `.keras`) and MatConvNet (`.mat`) as torchvision's, with their preprocessing.

Keras stores kernels as (h, w, in, out), and its `Flatten` reads (h, w, C) where torch's reads (C, h, w). Its VGGs were
converted from Caffe: they read BGR in 0-255 minus a mean colour (the `caffe` mode of `keras.applications`). MatConvNet
stores filters as (h, w, in, out) too, linear layers are convolutions, and pictures are RGB in 0-255 minus the file's
`averageImage`.

Sources: `keras.applications.vgg16` and `imagenet_utils.preprocess_input`; MatConvNet's manual and
`imagenet-vgg-verydeep-16.mat`.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import WeightsError, imported
from vggfeat.networks import arch
from vggfeat.networks.naming import Place, feature_indices, shape_text
from vggfeat.networks.preprocessing import BYTE_STD, OXFORD_MEAN

ForeignFormat = Literal["keras", "matconvnet"]
Arrays = dict[str, NDArray[np.float32]]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAT = b"MATLAB 5.0 MAT-file"
_MAT_73 = b"MATLAB 7.3 MAT-file"
_KERAS_WEIGHTS = "model.weights.h5"  # inside a `.keras` archive


class _Weights(NamedTuple):
    """The weights of one layer: a kernel, (h, w, in, out) or (in, out), and a bias (out,)."""

    name: str
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


def format_of(path: Path) -> ForeignFormat | None:
    """The format of a file, by its first bytes; None for others, such as those of torch, and for missing files.

    Raises `WeightsError` for a MATLAB file that is HDF5 inside.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAT))
        if start.startswith(_HDF5):
            return "keras"
        if start == _MAT_73:
            raise WeightsError(f"'{path}' is a MATLAB 7.3 file: save it with -v7")
        if start == _MAT:
            return "matconvnet"
        if start.startswith(b"PK") and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return "keras" if _KERAS_WEIGHTS in archive.namelist() else None
    except (OSError, zipfile.BadZipFile):
        return None
    return None


def read(path: Path, kind: ForeignFormat) -> tuple[Arrays, dict[str, Any]]:
    """The float32 arrays of a file under torchvision's keys, `features.N.*` and `classifier.N.*`, and its metadata.

    The metadata are source, mean, std, input_order, and classes if the file names them. The mean and std apply to RGB
    images in [0, 1].

    Raises `WeightsError` if the file is damaged, holds other layers than a VGG's, or needs a package that is not
    installed.
    """
    if kind == "keras":
        return _keras(path, values=True), _KERAS
    content = _load_mat(path)
    return _matconvnet(content, path), _describe_mat(content, path)


def read_shapes(path: Path, kind: ForeignFormat) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that `read` returns. The values in files of Keras are not read."""
    arrays = _keras(path, values=False) if kind == "keras" else _matconvnet(_load_mat(path), path)
    return {key: array.shape for key, array in arrays.items()}


_KERAS = {"source": "Keras", "mean": OXFORD_MEAN, "std": BYTE_STD, "input_order": "bgr"}


def _describe_mat(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    about = _mapping(content.get("meta")) or content
    average = _mapping(about.get("normalization")).get("averageImage")
    mean = OXFORD_MEAN if average is None or not np.size(average) else _mean_colour(path, np.asarray(average, float))
    names = _mapping(about.get("classes")).get("description", ())
    classes = [str(name) for name in np.atleast_1d(names).ravel()]
    return {"source": "MatConvNet", "mean": mean, "std": BYTE_STD, "input_order": "rgb", "classes": classes}


def _mean_colour(path: Path, average: NDArray[np.float64]) -> tuple[float, ...]:
    """The mean colour in [0, 1] of an average picture (H, W, 3) or colour in 0-255."""
    if average.shape[-1:] != (3,) and average.size != 3:
        raise WeightsError(f"'{path}' has an averageImage of shape {average.shape}, not (H, W, 3)")
    return tuple(average.reshape(-1, 3).mean(0) / 255)


# Keras


def _keras(path: Path, *, values: bool) -> Arrays:
    """The arrays of a file; without `values`, arrays of the same shapes that take no memory."""
    h5py = imported("h5py", f"reading '{path}' needs h5py", "export", kind=WeightsError)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                source: Any = io.BytesIO(archive.read(_KERAS_WEIGHTS))
        else:
            source = path
        with h5py.File(source, "r") as file:
            layers = list(_keras_layers(h5py, file, path, values=values))
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"'{path}' cannot be read, or is truncated ({' '.join(str(error).split())})") from error
    convolutions = [layer for layer in layers if layer.kernel.ndim == 4]
    if not convolutions:
        raise WeightsError(f"'{path}' is an HDF5 file that holds no convolution of Keras")
    first = convolutions[0].kernel.shape
    if first[0] != first[1]:
        raise WeightsError(
            f"'{path}' holds a kernel {shape_text(first)}: only kernels (h, w, in, out) are read, not Theano's"
        )
    state = _features(convolutions, path)
    linear = [layer for layer in layers if layer.kernel.ndim == 2]
    numbers = (0, 3, 6) if len(linear) == 3 else range(len(linear))
    for number, layer in zip(numbers, linear, strict=True):
        kernel = layer.kernel
        if number == 0 and kernel.shape[0] == arch.HEAD_SIDE**2 * convolutions[-1].kernel.shape[3]:
            kernel = _to_torch(kernel.reshape(arch.HEAD_SIDE, arch.HEAD_SIDE, -1, kernel.shape[1])).reshape(
                kernel.shape[1], -1
            )
        else:
            kernel = kernel.T
        state |= {f"classifier.{number}.weight": kernel, f"classifier.{number}.bias": layer.bias}
    return state


def _keras_layers(h5py: Any, file: Any, path: Path, *, values: bool) -> Iterator[_Weights]:
    """The layers of a file that have weights, in the order of the network."""
    groups: dict[str, list[Any]] = {}

    def visit(name: str, found: Any) -> None:
        inside = name.split("/")
        aside = inside[0].startswith("optimizer") or "seed_generator" in name
        if isinstance(found, h5py.Dataset) and found.ndim and not aside:
            groups.setdefault("/".join(inside[:-1]), []).append(found)

    file.visititems(visit)
    order = {name: number for number, name in enumerate(_keras_order(file))}

    def rank(name: str) -> tuple[int, list[Any]]:
        position = next((order[start] for start in _starts(name) if start in order), len(order))
        return position, [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

    for name in sorted(groups, key=rank):
        arrays = {
            found.ndim: np.asarray(found, np.float32) if values else np.broadcast_to(np.float32(0), found.shape)
            for found in groups[name]
        }
        kernels = [x for ndim, x in arrays.items() if ndim in (2, 4)]
        layer = next((part for part in reversed(name.split("/")) if part not in ("", "vars")), groups[name][0].name[1:])
        if len(kernels) != 1 or len(arrays) != len(groups[name]) or arrays.keys() - {1, 2, 4}:
            shapes = ", ".join(shape_text(found.shape) for found in groups[name])
            raise WeightsError(f"'{path}' holds '{layer}' ({shapes}): only convolutions and dense layers are read")
        bias = arrays.get(1, np.zeros(kernels[0].shape[-1], np.float32))
        yield _Weights(layer, kernels[0], bias)


def _keras_order(group: Any, prefix: str = "") -> Iterator[str]:
    """The paths of the layers, in the order that attributes of the file record. Keras 3 records none."""
    for name in map(_text, group.attrs.get("layer_names", ())):
        path = f"{prefix}{name}"
        if name in group:
            yield from (f"{path}/{_text(weight)}".rpartition("/")[0] for weight in group[name].attrs["weight_names"])
        yield path
    if "model_weights" in group:
        yield from _keras_order(group["model_weights"], "model_weights/")


def _starts(name: str) -> Iterator[str]:
    """A path and its parents, the longest first."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


# MatConvNet


def _matconvnet(content: Mapping[str, Any], path: Path) -> Arrays:
    layers = content.get("layers")
    if layers is None:
        raise WeightsError(f"'{path}' is a MATLAB file without `layers`, as those of MatConvNet's SimpleNN have")
    state: Arrays = {}
    index, linear = 0, []
    for layer in map(_mapping, np.atleast_1d(layers)):
        kind, name = str(layer.get("type")), str(layer.get("name"))
        if kind == "conv":
            found = _filters(layer, path)
            if name.startswith("fc"):
                linear.append(found)
            else:
                state |= _convolution(index, found)
        elif kind not in ("relu", "pool", "lrn", "normalize", "dropout", "softmax", "softmaxloss"):
            raise WeightsError(f"'{path}' holds the layer '{name}' of type {kind}, which no VGG of MatConvNet has")
        index += not linear and kind in ("conv", "relu", "pool", "lrn", "normalize")
    for number, found in zip((0, 3, 6) if len(linear) == 3 else range(len(linear)), linear, strict=True):
        state[f"classifier.{number}.weight"] = _to_torch(found.kernel).reshape(found.kernel.shape[3], -1)
        state[f"classifier.{number}.bias"] = found.bias
    if not state:
        raise WeightsError(f"'{path}' is a MATLAB file that holds no convolution of MatConvNet")
    return state


def _filters(layer: Mapping[str, Any], path: Path) -> _Weights:
    """The filters and biases of a layer: `weights`, a cell of both, or `filters` and `biases` in older files."""
    name = str(layer.get("name"))
    both = layer["weights"] if "weights" in layer else [layer.get("filters"), layer.get("biases")]
    if len(both) != 2 or both[0] is None or both[1] is None:
        raise WeightsError(f"'{path}' holds the convolution '{name}' without filters and biases")
    kernel, bias = (np.asarray(x, np.float32) for x in both)
    bias = bias.reshape(-1)
    if kernel.size and kernel.ndim < 4:  # scipy drops axes of length 1: those of the window, of the input, or both
        window = kernel.shape[:2] if kernel.ndim == 3 or (bias.size == 1 and kernel.ndim == 2) else (1, 1)
        kernel = kernel.reshape(*window, -1, bias.size)
    return _Weights(name, kernel, bias)


def _load_mat(path: Path) -> Mapping[str, Any]:
    """The network that a file holds, in the variable `net` or as variables of its own."""
    loadmat = imported("scipy.io", f"reading '{path}' needs scipy", "export", kind=WeightsError).loadmat
    names = ("layers", "net", "meta", "normalization", "classes")
    try:
        content: dict[str, Any] = loadmat(path, variable_names=names, simplify_cells=True)
    except Exception as error:  # scipy lets errors of zlib and of its parser through
        raise WeightsError(f"'{path}' cannot be read, or is truncated ({' '.join(str(error).split())})") from error
    return _mapping(content.get("net")) or content


def _mapping(found: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


# Both


_PLACE = re.compile(r"(?:block|conv)(\d+)_(?:conv)?(\d+)")


def _features(convolutions: Sequence[_Weights], path: Path) -> Arrays:
    """The convolutions under torchvision's keys: by the blocks that their names tell, else by their shapes."""
    named = [_PLACE.fullmatch(layer.name) for layer in convolutions]
    if all(named):
        places: list[Place] = [(int(found[1]), int(found[2])) for found in named if found]
        found = feature_indices(places)
        indices = [found[place] for place in places]
    else:
        indices = _indices_by_shape([_to_torch(layer.kernel).shape for layer in convolutions], path)
    state: Arrays = {}
    for index, layer in sorted(zip(indices, convolutions, strict=True), key=lambda pair: pair[0]):
        state |= _convolution(index, layer)
    return state


def _indices_by_shape(shapes: Sequence[tuple[int, ...]], path: Path) -> list[int]:
    for network in arch.NETWORKS.values():
        expected = {
            index: (layer.channels, layer.in_channels, layer.kernel, layer.kernel)
            for index, layer in enumerate(arch.layers(network))
            if layer.kind == "conv"
        }
        if not network.batch_norm and list(expected.values()) == list(shapes):
            return list(expected)
    raise WeightsError(
        f"'{path}' holds {len(shapes)} convolutions that are not those of a VGG, and whose names do not tell its blocks"
    )


def _convolution(index: int, layer: _Weights) -> Arrays:
    return {f"features.{index}.weight": _to_torch(layer.kernel), f"features.{index}.bias": layer.bias}


def _to_torch(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w, in, out) -> (out, in, h, w)."""
    return kernel.transpose(3, 2, 0, 1)
