from dataclasses import replace

import pytest
import torch

from vggfeat import LayerError, Recipe, RecipeError, write_picture
from vggfeat.transfer.recipe import RECIPES, format_recipe
from vggfeat.transfer.record import record
from vggfeat.ui import recipes
from vggfeat.ui.limits import Limits

LIMITS = Limits(size=1024)


@pytest.mark.parametrize("name", list(RECIPES))
def test_presets_go_to_text_and_back_within_the_limits(name):
    chosen = recipes.preset(name, LIMITS)
    assert recipes.read(format_recipe(chosen), LIMITS) == chosen
    assert chosen.size <= 1024
    assert chosen == replace(RECIPES[name], size=min(RECIPES[name].size, 1024))


def test_controls_change_their_fields_alone():
    text = format_recipe(replace(RECIPES["default"], seed=7))
    values = [320.0, 12, 3, 2e3, 0.5, "swd", "content"]
    changed = recipes.changed(text, values, LIMITS)
    assert recipes.controls(changed, LIMITS) == (320, 12, 3.0, 2000.0, 0.5, "swd", "content")
    assert type(changed.size) is int
    assert changed.seed == 7
    assert (
        replace(changed, **{name: getattr(RECIPES["default"], name) for name in recipes.CONTROLS}, seed=0)
        == (RECIPES["default"])
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size = ", "not TOML"),
        ("sise = 5", "did you mean size"),
        ("size = 4096", "up to 1024"),
        ("steps = 1000000", "up to 1000"),
        ("step_decay = 2.0", "up to 1"),
        ('start = "/etc/passwd"', "this page allows content, noise"),
        ('start = "photo.png"', "this page allows content, noise"),
        ('weights = "/etc/evil.pth"', "are not on this machine"),
        ('network = "vgg11"\nweights = "imagenet1k_v1"', "of 'vgg11' are not on this machine"),
        ('network = "64,64,M,128"', "are not on this machine"),
        ("x" * 30_000, "30000 characters"),
    ],
)
def test_what_a_page_may_not_ask_for_is_refused(text, words, monkeypatch, tmp_path):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))
    with pytest.raises((RecipeError, LayerError), match=words):
        recipes.read(text, LIMITS)


@pytest.mark.parametrize("value", [None, "", float("nan"), float("inf")])
def test_a_control_that_is_empty_is_told(value):
    values = list(recipes.controls(RECIPES["default"], LIMITS))
    values[0] = value
    with pytest.raises(RecipeError, match="size is"):
        recipes.changed(format_recipe(RECIPES["default"]), values, LIMITS)


def test_recipes_come_from_files_and_painted_pictures(tmp_path):
    chosen = replace(RECIPES["preview"], style_scale=0.5)
    (tmp_path / "mine.toml").write_text(format_recipe(chosen))
    assert recipes.of_file(tmp_path / "mine.toml", LIMITS) == chosen
    write_picture(tmp_path / "painted.png", torch.zeros(1, 3, 4, 4), text=record(chosen, []).text())
    assert recipes.of_file(tmp_path / "painted.png", LIMITS) == chosen
    write_picture(tmp_path / "plain.png", torch.zeros(1, 3, 4, 4))
    with pytest.raises(RecipeError, match=r"'plain.png' holds no recipe") as error:
        recipes.of_file(tmp_path / "plain.png", LIMITS)
    assert str(tmp_path) not in str(error.value)
    evil = Recipe(start="/etc/passwd")
    write_picture(tmp_path / "evil.png", torch.zeros(1, 3, 4, 4), text=record(evil, []).text())
    with pytest.raises(RecipeError, match="this page allows"):
        recipes.of_file(tmp_path / "evil.png", LIMITS)


def test_networks_are_those_whose_weights_are_here(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))
    assert recipes.networks() == ("vgg16", "vgg19")
