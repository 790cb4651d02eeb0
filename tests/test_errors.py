import numpy as np
import pytest
import torch

from vggfeat import LPIPS, texture, vgg
from vggfeat.dumps.neighbours import nearest
from vggfeat.errors import InputError, RecipeError, check_number, near
from vggfeat.explore.view import most_active
from vggfeat.pictures import images
from vggfeat.transfer.visualize import visualize

WORDS = ("mean", "none", "Sum")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("man", "did you mean mean?"),
        ("SUMM", "did you mean Sum?"),
        ("xyz", "choose from mean, none, Sum"),
        (None, "it is of type NoneType; choose from mean, none, Sum"),
        (2, "it is of type int; choose from mean, none, Sum"),
        (["mean"], "it is of type list; choose from mean, none, Sum"),
    ],
)
def test_near(word, message):
    assert near(word, WORDS) == message


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (1, 1, 4),
        (4, 1, 4),
        (10**9, 1, np.inf),
        (np.int64(3), 1, 4),
        (0.5, 0.0, 1.0),
        (1, 0.0, 1.0),
        (np.float32(0), 0.0, 1),
    ],
)
def test_numbers_that_are_allowed(value, least, most):
    check_number("steps", value, least, most)


@pytest.mark.parametrize(
    ("value", "least", "most", "message"),
    [
        (0, 1, np.inf, "first size is 0: it must be a whole number of at least 1"),
        (1.5, 1, 4, "first size is 1.5: it must be a whole number between 1 and 4"),
        (True, 1, 4, "first size is True: it must be a whole number"),
        ("2", 1, 4, "first size is '2': it must be a whole number"),
        (None, 0.5, 4, "first size is None: it must be a number between 0.5 and 4"),
        (float("nan"), 0.0, np.inf, "first size is nan: it must be a number of at least 0"),
    ],
)
def test_numbers_that_are_refused(value, least, most, message):
    with pytest.raises(RecipeError, match=message):
        check_number("first_size", value, least, most, kind=RecipeError)


GREY = torch.full((1, 3, 16, 16), 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda number: images.fit(number, 4, 4),
        lambda number: images.resize(GREY, number, 4),
        lambda number: vgg("A", num_classes=number),
        lambda number: vgg("A", hidden=number),
        lambda number: LPIPS(chunk=number),
        lambda number: nearest(np.eye(3), np.eye(3), top=number),
        lambda number: most_active(GREY, number),
        lambda number: texture(GREY, size=(8, number)),
        lambda number: visualize("relu1_1", channel=0, count=number),
    ],
)
@pytest.mark.parametrize("number", [0, -3])
def test_counts_below_one_are_refused_in_one_wording(call, number):
    with pytest.raises(InputError, match=f" is {number}: it must be a whole number "):
        call(number)
