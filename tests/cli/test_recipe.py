import json
import tomllib
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch

from vggfeat.pictures.images import write_picture
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


def test_a_painted_picture_tells_its_recipe_and_what_it_was_painted_from(vggfeat):
    for name in ("content ü.png", "style.jpg"):
        write_picture(name, torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    vggfeat("stylize", "content ü.png", "style.jpg", "--size", 32, "--steps", 2, "--tv", 0.5, "-o", "out.webp")
    text = vggfeat("recipe", "out.webp").stdout
    painted, content, style = text.splitlines()[:3]
    assert painted.startswith(f"# painted by vggfeat {version('vggfeat')}, torch {torch.__version__}, python 3.")
    assert content == f'# content "content ü.png" sha256 {sha256(Path("content ü.png").read_bytes()).hexdigest()}'
    assert style.startswith('# style "style.jpg" sha256 ')
    values = tomllib.loads(text)
    assert (values["steps"], values["size"], values["tv_weight"]) == (2, 32, 0.5)
    as_json = json.loads(vggfeat("recipe", "out.webp", "--json").stdout)
    assert as_json["inputs"][0]["role"] == "content"
    assert as_json["steps"] == 2
    vggfeat("stylize", "content ü.png", "style.jpg", "--recipe", "out.webp", "-o", "again.webp")
    assert Path("again.webp").read_bytes() == Path("out.webp").read_bytes()


def test_what_is_no_recipe(vggfeat):
    assert "name a recipe: default, " in vggfeat("recipe", code=2).stderr
    assert "unknown recipe 'fin', and not a .toml file: did you mean fine?" in vggfeat("recipe", "fin", code=2).stderr
    Path("my.toml").write_text("stepz = 3")
    assert (
        "recipe 'my.toml' has the unknown key 'stepz': did you mean steps"
        in vggfeat("recipe", "my.toml", code=2).stderr
    )
    write_picture("plain.png", torch.rand(1, 3, 8, 8))
    assert "the picture 'plain.png' holds no recipe" in vggfeat("recipe", "plain.png", code=2).stderr
    assert (
        "cannot read 'plan.png': no such file; did you mean 'plain.png'?"
        in vggfeat("recipe", "plan.png", code=2).stderr
    )
