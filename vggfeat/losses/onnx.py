"""ONNX files of extractors and criteria, which run without vggfeat, torch or Python."""

import os
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from vggfeat import files
from vggfeat.errors import InputError, LayerError, VggfeatError, check_number, did_you_mean, imported, similar
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.features.trunk import Trunk
from vggfeat.losses.adists import ADISTSLoss
from vggfeat.losses.criterion import Criterion, CriterionOptions, split_options
from vggfeat.losses.dmm import DMMLoss
from vggfeat.losses.metrics import available
from vggfeat.losses.perceptual import PerceptualLoss
from vggfeat.losses.signature import signature
from vggfeat.losses.similarity import METRIC_CRITERIA
from vggfeat.networks import weights as weights_table
from vggfeat.networks.preprocessing import Preprocessing
from vggfeat.pictures.ranges import RANGES, InputRange

OPSET = 18
"""The version of ONNX's operators in a file, unless another is requested."""

TOLERANCE = 1e-4
"""The most by which a file may differ from its module, relative to the largest value of an output."""

# From torch's exporter's own version to the newest that onnxscript 0.5 converts to.
_OPSETS = (18, 23)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file that was written.

    Attributes:
        path: the file.
        opset: the version of its operators.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        about: the signature that its metadata holds under `vggfeat`.
        differences: {shape of the images: how much the file differed from the module there, relative to the largest
            value}. Empty if it was not checked.
    """

    path: Path
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    about: str
    differences: Mapping[Shape, float]


def export_onnx(
    module: Trunk | Criterion[Any], path: str | os.PathLike[str], *, opset: int = OPSET, check: bool = True
) -> OnnxFile:
    """Write an extractor or a criterion as an ONNX file. Needs the extra `onnx`.

    The file normalises images as the module does: pass RGB images (N, 3, H, W) in the module's `input_range`, [0, 1]
    by default. Batch, height and width are free, down to the size that the module needs. It holds the weights, and
    neither gradients nor checks of values; its metadata holds the signature under `vggfeat`.

    An extractor has the input `images` and an output for each layer, named after it. A criterion has the inputs
    `prediction` and `target`, of equal shape, and the output `value` (see `reduction`); a `Criterion` of several terms
    also has one output a term.

    Args:
        module: a `FeatureExtractor`, also `FeatureExtractor.of` a model, or a criterion, in float32.
        path: the file. It is replaced if it exists, and appears whole or not at all.
        opset: version of ONNX's operators, 18 to 23.
        check: run the file with onnxruntime on noise of three sizes, and compare the outputs with the module's.

    Raises `InputError` for `DMM`, for a module whose graph depends on sizes (`ADISTS`, `resize`, `chunk`,
    `small="enlarge"`, `channels="slices"`), for other precisions and opsets. Raises `VggfeatError` if the extra is not
    installed, the file cannot be written, or it differs from the module by more than 1e-4 of the largest value.

    Example:
        >>> from vggfeat import FeatureExtractor, export_onnx
        >>> extract = FeatureExtractor("vgg16", ["relu1_1", "pool1"])
        >>> file = export_onnx(extract, "vgg16.onnx")  # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession("vgg16.onnx")  # doctest: +SKIP
        >>> relu1_1, pool1 = session.run(None, {"images": images.numpy()})  # doctest: +SKIP
    """
    check_number("opset", opset, *_OPSETS)
    _check_module(module)
    for name in ("onnx", "onnxscript"):
        imported(name, f"exporting to ONNX needs {name}", "onnx")
    runtime = imported("onnxruntime", "checking the file needs onnxruntime", "onnx") if check else None
    target = Path(path)
    if target.is_dir():
        raise InputError(f"'{target}' is a folder: name a file such as {target / 'vgg16.onnx'}")
    if not target.parent.is_dir():
        raise VggfeatError(f"cannot write '{target}': there is no folder '{target.parent}'")
    graph = _Graph(module)
    outputs = graph.outputs()
    program = _program(graph, outputs, opset)
    about = _about(graph.module)
    program.model.metadata_props["vggfeat"] = about
    program.model.doc_string = about
    with files.os_errors_as(VggfeatError, f"cannot write '{target}'"), files.replacing(target) as unfinished:
        program.save(unfinished)
        differences = _differences(graph, unfinished, runtime) if check else {}
        _check_differences(differences)
    return OnnxFile(target, opset, graph.inputs, outputs, about, differences)


def named(
    what: str,
    *,
    layers: Sequence[str] = (),
    weights: str = "default",
    input_range: InputRange = "unit",
    **preprocessing: Unpack[Preprocessing],
) -> Trunk | Criterion[Any]:
    """The extractor of a network, or the criterion of a metric (see `metrics.available`) with one value a pair.

    Args:
        what: such as `vgg16` or `lpips-vgg`.
        layers: the outputs of a network; of `perceptual` the layers that are compared.
        weights: as for `FeatureExtractor`.
        input_range: as for `FeatureExtractor`.
        preprocessing: of a network or `perceptual`, as for `FeatureExtractor`.

    Raises `InputError` for unknown names, for layers that are missing or not used, and for preprocessing of another
    metric.

    >>> named("lpips-alex").loss.net
    'alex'
    """
    known = [name for name, metric in available().items() if metric.networks]
    options: CriterionOptions = {"weights": weights, "input_range": input_range, "device": "cpu"}
    if layers and what in known and what != "perceptual":
        raise InputError(f"layers are for a network or 'perceptual': {what} has its own")
    given = [name for name, value in preprocessing.items() if value is not None]
    if given and what in known and what != "perceptual":
        raise InputError(f"{', '.join(given)} is for a network or 'perceptual': {what} has its own preprocessing")
    if what not in known:
        try:
            network = weights_table.network_for(what, weights)
        except LayerError as error:
            words = similar(what, known)
            raise (
                InputError(f"unknown network or metric '{what}': {did_you_mean(words)}") if words else error
            ) from None
        if not layers:
            raise InputError(f"name the layers of {what} that the file returns, such as relu3_3,relu4_3")
        return FeatureExtractor(network, layers, **split_options(options)[0], **preprocessing)
    if what == "perceptual":
        return PerceptualLoss(layers or ("relu3_3",), reduction="none", **options, **preprocessing)
    return METRIC_CRITERIA[what](reduction="none", **options)


_NOT_EXPORTABLE = (
    (DMMLoss, "DMM", "ONNX has no singular value decomposition"),
    (ADISTSLoss, "A-DISTS", "layers smaller than its window are compared differently, and a file serves every size"),
)


def _check_module(module: object) -> None:
    if not isinstance(module, Trunk | Criterion):
        raise InputError(f"a {type(module).__name__} cannot be exported: pass a FeatureExtractor or a criterion")
    trunk = module if isinstance(module, Trunk) else module.trunk
    if trunk.precision not in ("float32", "tf32"):
        raise InputError(f"the precision is {trunk.precision}: only float32 can be exported")
    if isinstance(module, Criterion):
        for kind, name, reason in _NOT_EXPORTABLE:
            if isinstance(module.loss, kind):
                raise InputError(f"{name} cannot be exported: {reason}")
        settings = {
            f"resize={module.resize}": module.resize is not None,
            f"chunk={module.chunk}": module.chunk is not None,
            "small='enlarge'": module.small == "enlarge",
            "channels='slices'": module.channels == "slices",
        }
        if refused := [setting for setting, used in settings.items() if used]:
            raise InputError(
                f"{refused[0]} cannot be exported, because the graph would depend on the image size: leave it out, "
                "and prepare the images before they enter the file"
            )


class _Graph(nn.Module):
    """The module on CPU, with tensors as inputs and a tuple of tensors as outputs."""

    def __init__(self, module: Trunk | Criterion[Any]) -> None:
        super().__init__()
        self.trunk = module if isinstance(module, Trunk) else module.trunk
        if self.trunk.offset.device.type != "cpu":
            module = deepcopy(module).to("cpu")
            self.trunk = module if isinstance(module, Trunk) else module.trunk
        self.module = module
        self.inputs = ("images",) if isinstance(module, Trunk) else ("prediction", "target")
        grey = isinstance(module, Criterion) and module.channels == "repeat"
        self.channels = 1 if grey else self.trunk.offset.shape[1]

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._named(images).values())

    def _named(self, images: Sequence[Tensor]) -> Mapping[str, Tensor]:
        found: Any = self.module(*images)
        if isinstance(found, Mapping):
            return found
        value, terms = found if isinstance(found, tuple) else (found, {})
        return {"value": value, **terms}

    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        with torch.no_grad():
            return tuple(self._named(self.noise(1, 0, 0)))

    def noise(self, batch: int, higher: int, wider: int) -> list[Tensor]:
        """A batch for each input, in the module's range, that many pixels larger than a small image."""
        low, high = RANGES[self.trunk.input_range]
        least = max(self.trunk.minimum_size, 32)
        generator = torch.Generator().manual_seed(0)
        shape = batch, self.channels, least + higher, least + wider
        return [torch.rand(shape, generator=generator, device="cpu") * (high - low) + low for _ in self.inputs]


def _program(graph: _Graph, outputs: Sequence[str], opset: int) -> Any:
    axes = {
        0: _axis("batch", 1),
        2: _axis("height", graph.trunk.minimum_size),
        3: _axis("width", graph.trunk.minimum_size),
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        return torch.onnx.export(
            graph,
            tuple(graph.noise(2, 16, 48)),
            dynamo=True,
            opset_version=opset,
            input_names=graph.inputs,
            output_names=outputs,
            dynamic_shapes=((axes,) * len(graph.inputs),),
            verbose=False,
        )


def _axis(name: str, least: int) -> Any:
    return torch.export.Dim(name, min=least)


def _about(module: Trunk | Criterion[Any]) -> str:
    return signature(module) if isinstance(module, Trunk) else module.signature()


def _differences(graph: _Graph, path: Path, runtime: Any) -> dict[Shape, float]:
    """{shape: the largest difference to the module, relative to an output's largest value} for three sizes."""
    session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    found: dict[Shape, float] = {}
    for size in ((1, 0, 0), (2, 13, 40), (3, 64, 31)):
        images = graph.noise(*size)
        with torch.no_grad():
            expected = graph(*images)
        came = session.run(None, {name: x.numpy() for name, x in zip(graph.inputs, images, strict=True)})
        differences = [_relative(torch.from_numpy(x), y) for x, y in zip(came, expected, strict=True)]
        found[images[0].shape] = float(torch.stack(differences).max())  # NaN if one is
    return found


def _relative(found: Tensor, expected: Tensor) -> Tensor:
    """The largest difference, relative to the largest value; infinite if the shapes differ."""
    if found.shape != expected.shape:
        return torch.tensor(torch.inf)
    return (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)


def _check_differences(differences: Mapping[Shape, float]) -> None:
    for shape, difference in differences.items():
        if not difference <= TOLERANCE:
            raise VggfeatError(
                f"on images of {'x'.join(map(str, shape))} the ONNX file differs by {difference:.1e} of the largest "
                f"value, more than {TOLERANCE:g}: nothing is written"
            )
