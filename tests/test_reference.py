"""Every public name has a page in the reference and an example that runs."""

import re
from pathlib import Path
from types import ModuleType

import vggfeat

INDEX = Path(__file__).parents[1] / "docs" / "reference" / "index.rst"
PUBLIC = {name: getattr(vggfeat, name) for name in dir(vggfeat) if not name.startswith("_")}
# Without an example yet. The list only shrinks.
WITHOUT_EXAMPLE = {
    "Classifier", "Comparison", "ContentLoss", "ContextualLoss", "CovarianceLoss", "Criterion", "DISTS",
    "DISTSLoss", "Dream", "GramLoss", "ImageError", "InputError", "LPIPS", "LPIPSLoss",
    "LayerError", "Matches", "MeanStdLoss", "PerceptualLoss", "Picture", "Progress", "RangeWarning", "Recipe",
    "RecipeError", "SlicedWassersteinLoss", "StyleLoss", "Stylization", "TotalVariationLoss",
    "TrainingRecipe", "VggfeatError", "WeightedSum", "WeightsError", "compare",
    "dream", "dump", "gram", "invert", "match", "metrics", "open_dump", "read_picture", "recipe", "stylize",
    "texture", "total_variation", "train", "view", "write_picture",
}  # fmt: skip


def page(name):
    """What the reference calls a public name: a module goes by its full name."""
    found = PUBLIC[name]
    return found.__name__ if isinstance(found, ModuleType) else f"vggfeat.{name}"


def test_the_reference_lists_every_public_name_once():
    listed = re.findall(r"^   (vggfeat\.[\w.]+)$", INDEX.read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(map(page, PUBLIC))


def test_every_public_name_has_an_example():
    assert {name for name, found in PUBLIC.items() if ">>> " not in found.__doc__} <= WITHOUT_EXAMPLE
