import json
from dataclasses import FrozenInstanceError, fields

import pytest

from vggfeat.errors import LayerError, RecipeError
from vggfeat.transfer.named import recipe
from vggfeat.transfer.recipe import RECIPES, Recipe, format_layers, parse_layers


def test_gatys_is_the_notebooks():
    gatys = RECIPES["gatys"]
    assert (gatys.network, gatys.weights, gatys.pooling, gatys.start) == ("vgg19", "oxford", "max", "content")
    assert gatys.content_layers == {"relu4_2": 1.0}
    assert list(gatys.style_layers) == ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    assert (gatys.content_weight, gatys.style_weight, gatys.tv_weight) == (1.0, 1e3, 0.0)
    assert set(gatys.style_layers.values()) == {1.0}


def test_recipes_are_frozen_and_changed_by_copy():
    changed = recipe("default", steps=3, style_layers={"relu1_1": 2.0})
    assert (changed.steps, dict(changed.style_layers)) == (3, {"relu1_1": 2.0})
    assert RECIPES["default"].steps != 3
    with pytest.raises(FrozenInstanceError):
        changed.steps = 4


def test_layers_are_named_once_and_for_all():
    changed = recipe("default", content_layers={"relu4_*": 2, "0": 1})
    assert dict(changed.content_layers) == {"conv1_1": 1, "relu4_1": 2, "relu4_2": 2, "relu4_3": 2, "relu4_4": 2}
    with pytest.raises(TypeError):
        changed.content_layers["relu1_1"] = 3.0
    assert json.loads(json.dumps(changed.as_dict()))["content_layers"]["relu4_1"] == 2


def test_every_network_has_weights_by_default():
    assert recipe("default", network="vgg16", content_layers={"relu4_2": 1}).weights == "default"


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"] for field in fields(Recipe))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style_weigth": 3}, "unknown option 'style_weigth' of a recipe: did you mean style_weight"),
        ({"optimiser": "sgd"}, "unknown optimiser 'sgd': choose from lbfgs, adam"),
        ({"network": "vgg17"}, "unknown network 'vgg17', and not a plan such as 64,64,M,128,128,M: did you mean vgg1"),
        ({"steps": 0}, "steps is 0: it must be a whole number between 1 and 1e"),
        ({"growth": 1.0}, "growth is 1.0: it must be a number between 1.1 and 16"),
        ({"style_weight": float("nan")}, "style weight is nan"),
        ({"style_weight": -1.0}, "style weight is -1"),
        ({"content_weight": 0.0, "style_weight": 0.0}, "needs a content or a style layer with a weight above 0"),
        ({"margin": 8}, "margin is 8: it must be a multiple of 16, the deepest layer's stride"),
        ({"margin": 16, "style_layers": {"pool5": 1}}, "margin is 16: it must be a multiple of 32"),
        ({"steps": 2.5}, "steps is 2.5: it must be a whole number"),
        ({"steps": "3"}, "steps is '3': it must be a whole number"),
        ({"step_decay": 1e300}, "step decay is 1e[+]300: it must be a number between 0.01 and 10"),
        ({"style_weight": float("inf")}, "style weight is inf"),
        ({"seed": 10**30}, "seed is 1"),
        ({"style_layers": ["relu1_1"]}, "layers come as .name: weight., not as list"),
        ({"style_layers": {"relu1_1": -2.0}}, "relu1_1 has the weight -2"),
    ],
)
def test_the_impossible_is_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        recipe("default", **changes)


def test_unknown_recipe_and_layer():
    with pytest.raises(RecipeError, match=r"unknown recipe 'gaty', and not a \.toml file: did you mean gatys\?"):
        recipe("gaty")
    with pytest.raises(LayerError, match="block 4 has relu4_1, relu4_2, relu4_3"):
        recipe("default", network="vgg16", content_layers={"relu4_4": 1.0})


def test_layers_are_read_and_written():
    weights = parse_layers("vgg19", "relu1_1:0.5, relu3_*,conv4_2:2e1")
    assert weights == {"relu1_1": 0.5, "relu3_1": 1, "relu3_2": 1, "relu3_3": 1, "relu3_4": 1, "conv4_2": 20}
    assert parse_layers("vgg19", format_layers(weights)) == weights
    with pytest.raises(RecipeError, match="gives relu1_1 the weight 'x', which is not a number"):
        parse_layers("vgg19", "relu1_1:x")
