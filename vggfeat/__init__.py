"""Named VGG features: perceptual and style losses, neural style transfer, activation dumps.

Importing this package is cheap: a name brings in its module, and torch, when it is first used. `__init__.pyi` lists the
names.

Example:
    >>> import torch
    >>> from vggfeat import FeatureExtractor
    >>> features = FeatureExtractor("vgg16", "relu3_3")(torch.zeros(1, 3, 64, 64))
    >>> features["relu3_3"].shape
    torch.Size([1, 256, 16, 16])
"""

from importlib import import_module
from typing import Any

import lazy_loader

# Modules that are public as a whole. A folder has its modules as attributes only once they are imported.
_MODULES = {
    "allocation": "vggfeat.features.allocation",
    "arch": "vggfeat.networks.arch",
    "metrics": "vggfeat.losses.metrics",
    "view": "vggfeat.explore.view",
    "weights": "vggfeat.networks.weights",
}

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return import_module(_MODULES[name]) if name in _MODULES else _load(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
