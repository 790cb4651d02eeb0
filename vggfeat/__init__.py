"""Named VGG features: perceptual and style losses, neural style transfer.

Importing this package is cheap: a name brings in its module, and torch, when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test holds the two lists together
    from vggfeat.dumps.reading import open_dump as open_dump
    from vggfeat.dumps.run import dump as dump
    from vggfeat.errors import ImageError as ImageError
    from vggfeat.errors import InputError as InputError
    from vggfeat.errors import LayerError as LayerError
    from vggfeat.errors import RecipeError as RecipeError
    from vggfeat.errors import VggfeatError as VggfeatError
    from vggfeat.errors import WeightsError as WeightsError
    from vggfeat.explore import view as view
    from vggfeat.explore.matching import Matches as Matches
    from vggfeat.explore.matching import match as match
    from vggfeat.features import allocation as allocation
    from vggfeat.features.extractor import FeatureExtractor as FeatureExtractor
    from vggfeat.losses import metrics as metrics
    from vggfeat.losses.content import ContentLoss as ContentLoss
    from vggfeat.losses.contextual import ContextualLoss as ContextualLoss
    from vggfeat.losses.covariance import CovarianceLoss as CovarianceLoss
    from vggfeat.losses.criterion import Criterion as Criterion
    from vggfeat.losses.dists import DISTSLoss as DISTSLoss
    from vggfeat.losses.functional import gram as gram
    from vggfeat.losses.functional import total_variation as total_variation
    from vggfeat.losses.gram import GramLoss as GramLoss
    from vggfeat.losses.lpips import LPIPSLoss as LPIPSLoss
    from vggfeat.losses.mean_std import MeanStdLoss as MeanStdLoss
    from vggfeat.losses.perceptual import PerceptualLoss as PerceptualLoss
    from vggfeat.losses.perceptual import StyleLoss as StyleLoss
    from vggfeat.losses.similarity import DISTS as DISTS
    from vggfeat.losses.similarity import LPIPS as LPIPS
    from vggfeat.losses.sliced_wasserstein import SlicedWassersteinLoss as SlicedWassersteinLoss
    from vggfeat.losses.variation import TotalVariationLoss as TotalVariationLoss
    from vggfeat.losses.weighted_sum import WeightedSum as WeightedSum
    from vggfeat.networks import arch as arch
    from vggfeat.networks import weights as weights
    from vggfeat.networks.network import VGG as VGG
    from vggfeat.networks.network import vgg as vgg
    from vggfeat.pairs.result import Comparison as Comparison
    from vggfeat.pairs.run import compare as compare
    from vggfeat.pictures.images import Picture as Picture
    from vggfeat.pictures.images import read_picture as read_picture
    from vggfeat.pictures.images import write_picture as write_picture
    from vggfeat.pictures.ranges import RangeWarning as RangeWarning
    from vggfeat.training.classification import Classifier as Classifier
    from vggfeat.training.recipe import TrainingRecipe as TrainingRecipe
    from vggfeat.training.run import train as train
    from vggfeat.transfer.beyond import invert as invert
    from vggfeat.transfer.beyond import texture as texture
    from vggfeat.transfer.dreams import Dream as Dream
    from vggfeat.transfer.dreams import dream as dream
    from vggfeat.transfer.named import recipe as recipe
    from vggfeat.transfer.recipe import Recipe as Recipe
    from vggfeat.transfer.run import Progress as Progress
    from vggfeat.transfer.run import Stylization as Stylization
    from vggfeat.transfer.run import stylize as stylize

_NAMES = {
    "dumps.reading": ("open_dump",),
    "dumps.run": ("dump",),
    "errors": ("ImageError", "InputError", "LayerError", "RecipeError", "VggfeatError", "WeightsError"),
    "explore.matching": ("Matches", "match"),
    "features.extractor": ("FeatureExtractor",),
    "losses.content": ("ContentLoss",),
    "losses.contextual": ("ContextualLoss",),
    "losses.covariance": ("CovarianceLoss",),
    "losses.criterion": ("Criterion",),
    "losses.dists": ("DISTSLoss",),
    "losses.functional": ("gram", "total_variation"),
    "losses.gram": ("GramLoss",),
    "losses.lpips": ("LPIPSLoss",),
    "losses.mean_std": ("MeanStdLoss",),
    "losses.perceptual": ("PerceptualLoss", "StyleLoss"),
    "losses.similarity": ("DISTS", "LPIPS"),
    "losses.sliced_wasserstein": ("SlicedWassersteinLoss",),
    "losses.variation": ("TotalVariationLoss",),
    "losses.weighted_sum": ("WeightedSum",),
    "networks.network": ("VGG", "vgg"),
    "pairs.result": ("Comparison",),
    "pairs.run": ("compare",),
    "pictures.images": ("Picture", "read_picture", "write_picture"),
    "pictures.ranges": ("RangeWarning",),
    "training.classification": ("Classifier",),
    "training.recipe": ("TrainingRecipe",),
    "training.run": ("train",),
    "transfer.beyond": ("invert", "texture"),
    "transfer.dreams": ("Dream", "dream"),
    "transfer.named": ("recipe",),
    "transfer.recipe": ("Recipe",),
    "transfer.run": ("Progress", "Stylization", "stylize"),
}
# Modules that are public as a whole.
_MODULES = {
    "allocation": "features.allocation",
    "arch": "networks.arch",
    "metrics": "losses.metrics",
    "view": "explore.view",
    "weights": "networks.weights",
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULE_OF | _MODULES)  # pyright: ignore[reportUnsupportedDunderAll] (derived from the names above)


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*_MODULE_OF, *_MODULES, "__version__"]
