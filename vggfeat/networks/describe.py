"""Describe a torch module as a network: the plan that anybody's stack of layers implements."""

from collections.abc import Iterator
from typing import cast

from torch import nn

from vggfeat.errors import LayerError, WeightsError
from vggfeat.networks import arch


def stack_of(model: nn.Module) -> nn.Sequential:
    """The `features` of a VGG, or a bare `nn.Sequential` itself, without wrappers of either: see `unwrapped`.

    Raises `LayerError` for another module.

    >>> len(stack_of(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())))
    2
    """
    found = unwrapped(model)
    found = unwrapped(getattr(found, "features", found))
    if not isinstance(found, nn.Sequential):
        raise LayerError(f"a {type(model).__name__} has no `features` that is a torch.nn.Sequential")
    return found


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside wrappers for parallel training and compilation.

    >>> unwrapped(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    found = model
    while True:
        if isinstance(found, nn.parallel.DistributedDataParallel | nn.DataParallel):
            found = cast("nn.Module", found.module)
        elif isinstance(inner := getattr(found, "_orig_mod", None), nn.Module):  # torch.compile
            found = inner
        else:
            return found


def describe_head(model: nn.Module) -> tuple[arch.Head | None, int, int]:
    """The head of a VGG as `arch.head_of` describes it; None for a module without one that is known.

    >>> from vggfeat import vgg
    >>> describe_head(vgg("8,M", num_classes=10, hidden=16))
    ('paper', 10, 16)
    """
    pool, classifier = getattr(model, "avgpool", None), getattr(model, "classifier", None)
    if not isinstance(pool, nn.AdaptiveAvgPool2d) or not isinstance(classifier, nn.Sequential):
        return None, 0, 0
    shapes = {f"classifier.{key}": tuple(x.shape) for key, x in classifier.state_dict().items()}
    expected = [nn.Linear, nn.ReLU | nn.LeakyReLU, nn.Dropout, nn.Linear, nn.ReLU | nn.LeakyReLU, nn.Dropout, nn.Linear]
    try:
        head, classes, hidden = arch.head_of(shapes, "the model")
    except WeightsError:
        return None, 0, 0
    size = cast("int | tuple[int, int]", pool.output_size)
    sides = {size} if isinstance(size, int) else set(size)
    kinds = expected if head == "paper" else [nn.Linear]
    fits = len(classifier) == len(kinds) and all(map(isinstance, classifier, kinds))
    return (head, classes, hidden) if fits and sides == {7 if head == "paper" else 1} else (None, 0, 0)


def describe(features: nn.Sequential) -> arch.Network:
    """The network that a stack of modules implements, such as the result of a `make_layers(cfg)`.

    Raises `LayerError` unless the stack consists of convolutions, each with its activation, and of pools.

    >>> describe(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))).name
    '8,M'
    """
    plan: list[int | str | arch.Conv | arch.Pool] = []
    slopes: set[float] = set()
    normalised: set[bool] = set()
    in_channels = 0
    kinds = [_kind(index, module) for index, module in enumerate(features)]
    for index, (kind, module) in enumerate(zip(kinds, features, strict=True)):
        follow = kinds[index + 1 : index + 3]
        if isinstance(module, nn.Conv2d):
            in_channels = in_channels or module.in_channels
            if follow[:1] != ["relu"] and follow != ["bn", "relu"]:
                raise LayerError(f"features.{index} is a convolution without an activation: no plan describes it")
            normalised.add(follow[0] == "bn")
            (kernel, _), (step, _), (padding, _) = _square(index, module)
            plan.append(arch.simplest(arch.Conv(module.out_channels, kernel, step, padding)))
        elif kind == "relu":
            slopes.add(float(getattr(module, "negative_slope", 0.0)))
        elif kind == "lrn":
            plan.append("LRN")
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            (kernel, _), (step, _), (padding, _) = _square(index, module)
            plan.append(arch.simplest(arch.Pool(kernel, step, padding)))
    if len(slopes) > 1 or len(normalised) > 1:
        raise LayerError(
            "the stack mixes several activations, or normalises only some convolutions: no plan describes it"
        )
    return arch.network(
        plan, batch_norm=True in normalised, slope=next(iter(slopes), 0.0), in_channels=in_channels or None
    )


_KINDS: tuple[tuple[arch.Kind, tuple[type[nn.Module], ...]], ...] = (
    ("conv", (nn.Conv2d,)),
    ("bn", (nn.BatchNorm2d, nn.SyncBatchNorm)),
    ("relu", (nn.ReLU, nn.LeakyReLU)),
    ("lrn", (nn.LocalResponseNorm,)),
    ("pool", (nn.MaxPool2d, nn.AvgPool2d)),
)


def _kind(index: int, module: nn.Module) -> arch.Kind:
    for kind, types in _KINDS:
        if isinstance(module, types):
            return kind
    raise LayerError(f"features.{index} is a {type(module).__name__}, which no plan describes")


def _square(index: int, module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> Iterator[tuple[int, int]]:
    """Kernel, stride and padding of a module that is the same in both dimensions."""
    pairs = [
        (value, value) if isinstance(value, int) else cast("tuple[int, int]", value)
        for value in (module.kernel_size, module.stride, module.padding)
    ]
    plain = getattr(module, "groups", 1) == 1 and getattr(module, "dilation", 1) in (1, (1, 1))
    if not plain or any(isinstance(pair, str) or pair[0] != pair[1] for pair in pairs):
        raise LayerError(f"features.{index} is not square, or is dilated or grouped: no plan describes it")
    return iter(pairs)
