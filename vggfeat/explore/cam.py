"""Where a classifier looks: class activation maps (Grad-CAM, Layer-CAM) of any network with logits."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vggfeat.errors import InputError, LayerError, near, one_of
from vggfeat.networks import arch
from vggfeat.networks.describe import describe, stack_of

CamMethod = Literal["grad-cam", "layer-cam"]


@dataclass(frozen=True, slots=True, eq=False)
class ClassActivation:
    """The maps of a batch.

    Attributes:
        maps: (N, h, w) at the layer's positions; values below 0 are cut off.
        classes: (N,), the class that each map explains.
        logits: (N, classes), what the network computed.
    """

    maps: Tensor
    classes: Tensor
    logits: Tensor

    def shares(self, height: int, width: int) -> Tensor:
        """The maps resampled to the pixels of the input, each stretched to [0, 1]: (N, 1, height, width)."""
        return _stretched(interpolate(self.maps[:, None], (height, width), mode="bilinear", align_corners=False))


def class_activation(
    model: nn.Module,
    images: Tensor,
    layer: str | nn.Module,
    classes: int | Sequence[int] | None = None,
    *,
    method: CamMethod = "grad-cam",
) -> ClassActivation:
    """Where in `images` the evidence for a class lies, by the gradient of its logit at a layer.

    Grad-CAM (Selvaraju et al., 2017) weights each channel by the mean of its gradient; Layer-CAM (Jiang et al., 2021)
    weights each position by its gradient, if that is positive, and suits shallow layers too.

    Args:
        model: maps `images` to logits (N, classes). It runs in evaluation mode and is left as it was; its parameters
            gain no gradients.
        images: (N, ...), as the model takes them.
        layer: the name of a submodule, such as `layer4.1`, or the module; for a VGG also a layer such as `relu5_3`.
        classes: the class to explain, of all images or of each; None is the most probable one.
        method: `grad-cam` or `layer-cam`.

    Raises `LayerError` for an unknown layer, or one whose output is not (N, C, h, w) or does not reach the logits, and
    `InputError` for a class that does not exist.

    >>> from vggfeat import vgg
    >>> model = vgg("8,M,16", head="gap", num_classes=3, seed=0)
    >>> found = class_activation(model, torch.rand(2, 3, 16, 16), "relu2_1", classes=1)
    >>> found.maps.shape, found.classes.tolist(), found.shares(16, 16).shape
    (torch.Size([2, 8, 8]), [1, 1], torch.Size([2, 1, 16, 16]))
    """
    one_of("method", method, get_args(CamMethod))
    module, name = _module(model, layer)
    with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
        x = images.detach().clone().requires_grad_()
        activation, logits = _forward(model, module, x, name)
        if logits.ndim != 2 or len(logits) != len(images):
            raise InputError(f"the model returns {tuple(logits.shape)}: it must return logits (N, classes)")
        chosen = _chosen(classes, logits)
        score = logits.gather(1, chosen[:, None]).sum()
        try:
            [gradient] = torch.autograd.grad(score, [activation])
        except RuntimeError as error:  # torch's way to say that there is no path
            raise LayerError(f"the logits have no gradient at {name}") from error
    activation, gradient = activation.detach().float(), gradient.float()
    if method == "grad-cam":
        maps = (gradient.mean((2, 3), keepdim=True) * activation).sum(1)
    else:
        maps = (gradient.clamp_min(0) * activation).sum(1)
    return ClassActivation(maps.clamp_min(0), chosen, logits.detach())


def _forward(model: nn.Module, module: nn.Module, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The output of `module` in a pass of `model`, and the pass's result."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise LayerError(f"{name} returns {shape}: a map needs (N, C, h, w)")
        kept.append(output)
        return output.clone()  # a layer that works in place must not change what is kept

    handle = module.register_forward_hook(keep)
    try:
        logits = model(x)
    finally:
        handle.remove()
    if not kept:
        raise LayerError(f"the model does not use {name}")
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returns {type(logits).__name__}: it must return logits (N, classes)")
    return kept[-1], logits


def _chosen(classes: int | Sequence[int] | None, logits: Tensor) -> Tensor:
    if classes is None:
        return logits.argmax(1)
    given = [classes] * len(logits) if isinstance(classes, int) else list(classes)
    if len(given) != len(logits):
        raise InputError(f"{len(given)} classes are given for {len(logits)} images")
    if missing := [each for each in given if not 0 <= each < logits.shape[1]]:
        raise InputError(f"there is no class {missing[0]}: there are 0 to {logits.shape[1] - 1}")
    return torch.tensor(given, device=logits.device)


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode inside the block; then each module has the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _module(model: nn.Module, layer: str | nn.Module) -> tuple[nn.Module, str]:
    """The module that `layer` names, and a name for messages."""
    if isinstance(layer, nn.Module):
        name = next((name for name, module in model.named_modules() if module is layer), None)
        if name is None:
            raise LayerError(f"the model has no such {type(layer).__name__}")
        return layer, name or "the model"
    modules = dict(model.named_modules())
    if layer and layer in modules:
        return modules[layer], layer
    try:
        stack = stack_of(model)
        known = {each.name: each for each in arch.layers(describe(stack))}
    except LayerError:
        known, stack = {}, nn.Sequential()
    if layer in known:
        return stack[known[layer].index], layer
    raise LayerError(f"unknown layer '{layer}': {near(layer, [*known, *filter(None, modules)][:200])}")


def _stretched(maps: Tensor) -> Tensor:
    above = maps - maps.amin((1, 2, 3), keepdim=True)
    most = above.amax((1, 2, 3), keepdim=True)
    return above / torch.where(most > 0, most, 1)
