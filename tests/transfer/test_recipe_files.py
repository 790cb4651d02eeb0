import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from vggfeat.errors import RecipeError
from vggfeat.transfer import recipe as module
from vggfeat.transfer.named import recipe
from vggfeat.transfer.recipe import LABELS, LAYER_FIELDS, RECIPES, Recipe, format_recipe, from_values
from vggfeat.transfer.stages import plan

FOLDER = Path(module.__file__).parent / "recipes"
FIELDS = {field.name for field in fields(Recipe)}


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes, name: str = "my.toml") -> Path:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def test_a_preset_is_a_file_each():
    assert set(RECIPES) == {path.stem for path in FOLDER.glob("*.toml")}
    assert set(RECIPES) == {"default", "preview", "fine", "print", "gatys", "texture", "invert"}
    assert len(RECIPES) == 7
    for name, preset in RECIPES.items():
        assert preset.name == name
        assert preset.about
    assert "absent" not in RECIPES


def test_the_default_leaves_nothing_out():
    assert set(tomllib.loads((FOLDER / "default.toml").read_text())) == FIELDS - {"name"}


def test_presets_differ_from_the_default_in_what_they_are_for():
    default = RECIPES["default"].as_dict()
    changed = {
        name: {key for key, value in preset.as_dict().items() if value != default[key]} - {*LABELS}
        for name, preset in RECIPES.items()
    }
    assert changed == {
        "default": set(),
        "preview": {"size", "steps", "step_decay"},
        "fine": {"growth", "steps", "step_decay"},
        "print": {"size", "steps", "step_decay"},
        "gatys": {"weights", "content_weight", "steps", "step_decay", "margin"},
        "texture": {"content_layers", "content_weight", "start", "first_size", "steps", "step_decay", "margin"},
        "invert": {
            *("size", "style_layers", "content_weight", "style_weight", "tv_weight", "start", "first_size"),
            *("steps", "step_decay", "margin"),
        },
    }


def test_print_is_painted_no_less_than_the_default_and_costs_little_more_for_each_size():
    chosen = RECIPES["print"]
    stages = plan(chosen, 2048, 2048)
    assert [(stage.width, stage.steps) for stage in stages] == [(256, 120), (512, 60), (1024, 30), (2048, 15)]
    # Each size has four times the pixels and half the steps: twice the work of the one before.
    assert [stage.share for stage in stages] == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15])
    assert stages[1].steps >= plan(RECIPES["default"], 512, 512)[-1].steps


def test_importing_reads_no_file_and_no_torch():
    code = """
import sys
opened = []
sys.addaudithook(lambda event, given: event == "open" and opened.append(str(given[0])))
from vggfeat.transfer import recipe
read = any(name.endswith(".toml") for name in opened)
sys.exit(read or any(name in sys.modules for name in ("torch", "numpy", "PIL")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_changes_the_default(written):
    chosen = recipe(written('steps = 7\nstyle_layers = "relu1_1:0.5, relu3_*"\n[content_layers]\nrelu4_2 = 2\n'))
    assert (chosen.name, chosen.about, chosen.steps) == ("my", "", 7)
    assert chosen.content_weight == RECIPES["default"].content_weight
    assert dict(chosen.content_layers) == {"relu4_2": 2.0}
    assert dict(chosen.style_layers) == {"relu1_1": 0.5, "relu3_1": 1, "relu3_2": 1, "relu3_3": 1, "relu3_4": 1}
    assert recipe(str(written("")), steps=9).steps == 9


@pytest.mark.parametrize("name", ["default", "fine", "gatys", "preview", "print"])
def test_what_is_formatted_is_read_again(name, written):
    path = written(format_recipe(RECIPES[name]))
    assert recipe(path) == RECIPES[name]
    assert set(tomllib.loads(path.read_text())) == FIELDS
    assert path.read_text().count("  # ") == len(FIELDS)


def test_any_value_survives_the_file(written):
    odd = recipe(
        "default",
        name='a "quoted" ü日本🎨\\ \n\t\x7f\x01 # name',
        start="C:\\paint\\é.png",
        style_weight=0.1 + 0.2,
        tv_weight=1e-12,
        seed=2**63 - 1,
        style_layers={"relu1_1": 1 / 3, "pool2": 1e12},
    )
    assert recipe(written(format_recipe(odd))) == odd


def test_json_gives_the_recipe_back():
    chosen = RECIPES["gatys"]
    assert from_values(json.loads(json.dumps(chosen.as_dict())), "here") == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("style_weigth = 3", "has the unknown key 'style_weigth': did you mean style_weight"),
        ('[options]\nsteps = "3"', "has the unknown key 'options'"),
        ('steps = "3"', "'steps' is '3', not a whole number"),
        ("steps = 3.0", "'steps' is 3.0, not a whole number"),
        ("steps = true", "'steps' is True, not a whole number"),
        ("growth = false", "'growth' is False, not a number"),
        ("growth = 2020-01-01", "'growth' is datetime.date"),
        ("network = 19", "'network' is 19, not text"),
        ('style_layers = ["relu1_1"]', "'style_layers' is .'relu1_1'., not layers: write a table of weights"),
        ('style_layers = {relu1_1 = "1"}', "'style_layers' is .*, not layers"),
        ('style_layers = "relu9_1"', "my.toml'.*relu9_1"),
        ('style_layers = "relu1_1:x"', "gives relu1_1 the weight 'x'"),
        ("[style_layers]\nrelu1_9 = 1", "block 1 has relu1_1, relu1_2"),
        ("steps = 0", "steps is 0: it must be a whole number between 1"),
        ('objective = "grams"', "unknown objective 'grams': did you mean gram"),
        ('color = "lumimance"', "unknown color 'lumimance': did you mean luminance"),
        ("until_plateau = 2", "until plateau is 2: it must be a number between 0 and 1"),
        ("size = 0", "size is 0: it must be a whole number between 1"),
        ("steps = \n", "is not TOML: .*line 1"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_bad_file_is_named_with_its_key(text, message, written):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe(written(text))
    assert "my.toml'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read recipe '.*absent\.toml': no such file"):
        recipe(tmp_path / "absent.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match=r"cannot read recipe '.*': is a directory"):
        recipe(tmp_path / "folder.toml")
    with pytest.raises(RecipeError, match=r"unknown recipe 'my', and not a \.toml file: choose from .*fine"):
        recipe("my")


def test_labels_and_layers_are_fields():
    assert {*LABELS, *LAYER_FIELDS} < FIELDS
