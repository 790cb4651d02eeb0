"""Named VGG features: perceptual and style losses, neural style transfer.

Importing this package is cheap: a name brings in its module, and torch, when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test holds the two lists together
    from vggfeat.errors import ImageError as ImageError
    from vggfeat.errors import InputError as InputError
    from vggfeat.errors import LayerError as LayerError
    from vggfeat.errors import RecipeError as RecipeError
    from vggfeat.errors import VggfeatError as VggfeatError
    from vggfeat.errors import WeightsError as WeightsError
    from vggfeat.extract import FeatureExtractor as FeatureExtractor
    from vggfeat.functional import gram as gram
    from vggfeat.functional import total_variation as total_variation
    from vggfeat.images import Picture as Picture
    from vggfeat.images import read_picture as read_picture
    from vggfeat.images import write_picture as write_picture
    from vggfeat.losses import ContentLoss as ContentLoss
    from vggfeat.losses import StyleLoss as StyleLoss
    from vggfeat.losses import TotalVariationLoss as TotalVariationLoss
    from vggfeat.losses import WeightedSum as WeightedSum
    from vggfeat.transfer.recipe import Recipe as Recipe
    from vggfeat.transfer.recipe import recipe as recipe
    from vggfeat.transfer.run import Progress as Progress
    from vggfeat.transfer.run import Stylization as Stylization
    from vggfeat.transfer.run import stylize as stylize

_NAMES = {
    "errors": ("ImageError", "InputError", "LayerError", "RecipeError", "VggfeatError", "WeightsError"),
    "extract": ("FeatureExtractor",),
    "functional": ("gram", "total_variation"),
    "images": ("Picture", "read_picture", "write_picture"),
    "losses": ("ContentLoss", "StyleLoss", "TotalVariationLoss", "WeightedSum"),
    "transfer.recipe": ("Recipe", "recipe"),
    "transfer.run": ("Progress", "Stylization", "stylize"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*_MODULE_OF, "__version__"]
