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

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import lazy_loader

# Modules that are public as a whole. A folder has its modules as attributes only once they are imported.
_MODULES = {
    "allocation": "vggfeat.features.allocation",
    "arch": "vggfeat.networks.arch",
    "functional": "vggfeat.losses.functional",
    "metrics": "vggfeat.losses.metrics",
    "view": "vggfeat.explore.view",
    "weights": "vggfeat.networks.weights",
}


class _PublicModules(MetaPathFinder, Loader):
    """Makes `import vggfeat.functional` find the module whose own name is `vggfeat.losses.functional`."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the base's)
        target: ModuleType | None = None,  # noqa: ARG002 (the base's)
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, self, origin=_MODULES[name]) if package == __name__ and name in _MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(str(spec.origin))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back. It has been executed already."""
        if module.__spec__:
            module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_PublicModules())

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return import_module(_MODULES[name]) if name in _MODULES else _load(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
