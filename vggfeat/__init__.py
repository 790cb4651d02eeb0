"""Named VGG features: perceptual and style losses, neural style transfer.

Importing this package is cheap: a name brings in its module, and torch, when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test holds the two lists together
    from vggfeat.classification import Classifier as Classifier
    from vggfeat.criterion import Criterion as Criterion
    from vggfeat.dumps.reading import open_dump as open_dump
    from vggfeat.dumps.run import dump as dump
    from vggfeat.errors import ImageError as ImageError
    from vggfeat.errors import InputError as InputError
    from vggfeat.errors import LayerError as LayerError
    from vggfeat.errors import RecipeError as RecipeError
    from vggfeat.errors import VggfeatError as VggfeatError
    from vggfeat.errors import WeightsError as WeightsError
    from vggfeat.extract import FeatureExtractor as FeatureExtractor
    from vggfeat.extract import RangeWarning as RangeWarning
    from vggfeat.functional import gram as gram
    from vggfeat.functional import total_variation as total_variation
    from vggfeat.images import Picture as Picture
    from vggfeat.images import read_picture as read_picture
    from vggfeat.images import write_picture as write_picture
    from vggfeat.losses import ContentLoss as ContentLoss
    from vggfeat.losses import ContextualLoss as ContextualLoss
    from vggfeat.losses import CovarianceLoss as CovarianceLoss
    from vggfeat.losses import GramLoss as GramLoss
    from vggfeat.losses import MeanStdLoss as MeanStdLoss
    from vggfeat.losses import SlicedWassersteinLoss as SlicedWassersteinLoss
    from vggfeat.losses import TotalVariationLoss as TotalVariationLoss
    from vggfeat.losses import WeightedSum as WeightedSum
    from vggfeat.matching import Matches as Matches
    from vggfeat.matching import match as match
    from vggfeat.network import VGG as VGG
    from vggfeat.network import vgg as vgg
    from vggfeat.pairs.result import Comparison as Comparison
    from vggfeat.pairs.run import compare as compare
    from vggfeat.perceptual import PerceptualLoss as PerceptualLoss
    from vggfeat.perceptual import StyleLoss as StyleLoss
    from vggfeat.similarity import DISTS as DISTS
    from vggfeat.similarity import LPIPS as LPIPS
    from vggfeat.similarity import DISTSLoss as DISTSLoss
    from vggfeat.similarity import LPIPSLoss as LPIPSLoss
    from vggfeat.training.recipe import TrainingRecipe as TrainingRecipe
    from vggfeat.training.run import train as train
    from vggfeat.transfer.beyond import invert as invert
    from vggfeat.transfer.beyond import texture as texture
    from vggfeat.transfer.dreams import Dream as Dream
    from vggfeat.transfer.dreams import dream as dream
    from vggfeat.transfer.recipe import Recipe as Recipe
    from vggfeat.transfer.recipe import recipe as recipe
    from vggfeat.transfer.run import Progress as Progress
    from vggfeat.transfer.run import Stylization as Stylization
    from vggfeat.transfer.run import stylize as stylize

_NAMES = {
    "errors": ("ImageError", "InputError", "LayerError", "RecipeError", "VggfeatError", "WeightsError"),
    "classification": ("Classifier",),
    "criterion": ("Criterion",),
    "dumps.reading": ("open_dump",),
    "dumps.run": ("dump",),
    "extract": ("FeatureExtractor", "RangeWarning"),
    "functional": ("gram", "total_variation"),
    "images": ("Picture", "read_picture", "write_picture"),
    "losses": (
        *("ContentLoss", "ContextualLoss", "CovarianceLoss", "GramLoss", "MeanStdLoss", "SlicedWassersteinLoss"),
        *("TotalVariationLoss", "WeightedSum"),
    ),
    "matching": ("Matches", "match"),
    "network": ("VGG", "vgg"),
    "pairs.result": ("Comparison",),
    "pairs.run": ("compare",),
    "perceptual": ("PerceptualLoss", "StyleLoss"),
    "similarity": ("DISTS", "DISTSLoss", "LPIPS", "LPIPSLoss"),
    "training.recipe": ("TrainingRecipe",),
    "training.run": ("train",),
    "transfer.beyond": ("invert", "texture"),
    "transfer.dreams": ("Dream", "dream"),
    "transfer.recipe": ("Recipe", "recipe"),
    "transfer.run": ("Progress", "Stylization", "stylize"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll] (derived from the names above)


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*_MODULE_OF, "__version__"]
