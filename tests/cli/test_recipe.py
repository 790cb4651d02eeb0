import json
import tomllib
from pathlib import Path

from vggfeat.transfer.recipe import RECIPES, format_recipe


def test_presets_are_listed(vggfeat):
    lines = vggfeat("recipe", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(RECIPES)
    assert all(preset.about in line for preset, line in zip(RECIPES.values(), lines[1:], strict=True))
    assert "2048 px" in next(line for line in lines if line.startswith("print"))


def test_a_preset_is_printed_as_a_file_to_change(vggfeat):
    text = vggfeat("recipe", "fine").stdout
    assert text == format_recipe(RECIPES["fine"])
    Path("my.toml").write_text(text.replace("steps = 100 ", "steps = 3 "))
    assert tomllib.loads(vggfeat("recipe", "my.toml").stdout)["steps"] == 3
    assert json.loads(vggfeat("recipe", "my.toml", "--json").stdout)["steps"] == 3


def test_what_is_no_recipe(vggfeat):
    assert "name a recipe: default, " in vggfeat("recipe", code=2).stderr
    assert "unknown recipe 'fin': near are fine" in vggfeat("recipe", "fin", code=2).stderr
    Path("my.toml").write_text("stepz = 3")
    assert "recipe 'my.toml' has the unknown key 'stepz': near are steps" in vggfeat("recipe", "my.toml", code=2).stderr
