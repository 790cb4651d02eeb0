import hashlib
import json

import pytest
import torch

from vggfeat.errors import ImageError, RecipeError
from vggfeat.pictures.images import write_picture
from vggfeat.transfer.named import recipe
from vggfeat.transfer.record import KEY, read_record, record

RGB = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def made(tmp_path):
    source = tmp_path / "Größe \u65e5.jpg"
    source.write_bytes(b"any bytes")
    return record(recipe("gatys", tv_weight=0.1, start="é.png"), [("content", source), ("style", source)])


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_a_record_comes_back_from_every_format(ending, made, tmp_path):
    path = tmp_path / f"out.{ending}"
    write_picture(path, RGB, text=made.text())
    assert read_record(path) == made
    assert recipe(path) == made.recipe
    assert recipe(str(path), steps=3).steps == 3


def test_what_is_recorded(made):
    assert [item.role for item in made.inputs] == ["content", "style"]
    assert made.inputs[0].file == "Größe \u65e5.jpg"
    assert made.inputs[0].sha256 == hashlib.sha256(b"any bytes").hexdigest()
    assert made.versions["torch"] == torch.__version__
    assert set(made.versions) == {"vggfeat", "torch", "python"}
    assert made.text() == made.text()


def test_a_picture_without_a_recipe(tmp_path):
    write_picture(tmp_path / "a.png", RGB)
    with pytest.raises(RecipeError, match=r"the picture '.*a\.png' holds no recipe"):
        recipe(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"cannot read '.*b\.png': no such file; did you mean 'a\.png'\?"):
        recipe(tmp_path / "b.png")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recipe": 3}', '{"recipe": {}, "versions": {}, "inputs": [{}]}'])
def test_a_damaged_record(text, tmp_path):
    write_picture(tmp_path / "a.png", RGB, text={KEY: text})
    with pytest.raises(RecipeError, match=r"the picture '.*a\.png' holds a recipe that is damaged"):
        read_record(tmp_path / "a.png")


def test_a_recipe_of_another_version(made, tmp_path):
    values = json.loads(made.text()[KEY])
    values["recipe"]["stepz"] = 3
    write_picture(tmp_path / "a.png", RGB, text={KEY: json.dumps(values)})
    with pytest.raises(RecipeError, match=r"the picture '.*a\.png' has the unknown key 'stepz': did you mean steps"):
        read_record(tmp_path / "a.png")
