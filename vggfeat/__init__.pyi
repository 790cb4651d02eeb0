# The public names of vggfeat, and where each is defined. `__init__.py` reads this file.
# Type checkers and editors do, too.

from .dumps.reading import open_dump as open_dump
from .dumps.run import dump as dump
from .errors import ImageError as ImageError
from .errors import InputError as InputError
from .errors import LayerError as LayerError
from .errors import RecipeError as RecipeError
from .errors import VggfeatError as VggfeatError
from .errors import WeightsError as WeightsError
from .explore import view as view
from .explore.matching import Matches as Matches
from .explore.matching import match as match
from .features import allocation as allocation
from .features.extractor import FeatureExtractor as FeatureExtractor
from .losses import metrics as metrics
from .losses.content import ContentLoss as ContentLoss
from .losses.contextual import ContextualLoss as ContextualLoss
from .losses.covariance import CovarianceLoss as CovarianceLoss
from .losses.criterion import Criterion as Criterion
from .losses.dists import DISTSLoss as DISTSLoss
from .losses.formulas import gram as gram
from .losses.formulas import total_variation as total_variation
from .losses.gram import GramLoss as GramLoss
from .losses.lpips import LPIPSLoss as LPIPSLoss
from .losses.mean_std import MeanStdLoss as MeanStdLoss
from .losses.perceptual import PerceptualLoss as PerceptualLoss
from .losses.perceptual import StyleLoss as StyleLoss
from .losses.similarity import DISTS as DISTS
from .losses.similarity import LPIPS as LPIPS
from .losses.sliced_wasserstein import SlicedWassersteinLoss as SlicedWassersteinLoss
from .losses.variation import TotalVariationLoss as TotalVariationLoss
from .losses.weighted_sum import WeightedSum as WeightedSum
from .networks import arch as arch
from .networks import weights as weights
from .networks.network import VGG as VGG
from .networks.network import vgg as vgg
from .pairs.result import Comparison as Comparison
from .pairs.run import compare as compare
from .pictures.images import Picture as Picture
from .pictures.images import read_picture as read_picture
from .pictures.images import write_picture as write_picture
from .pictures.ranges import RangeWarning as RangeWarning
from .training.classification import Classifier as Classifier
from .training.recipe import TrainingRecipe as TrainingRecipe
from .training.run import train as train
from .transfer.beyond import invert as invert
from .transfer.beyond import texture as texture
from .transfer.dreams import Dream as Dream
from .transfer.dreams import dream as dream
from .transfer.loop import Progress as Progress
from .transfer.named import recipe as recipe
from .transfer.recipe import Recipe as Recipe
from .transfer.run import Stylization as Stylization
from .transfer.run import stylize as stylize

__version__: str
