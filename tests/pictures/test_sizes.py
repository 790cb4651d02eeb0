import pytest

from vggfeat.errors import InputError
from vggfeat.pictures.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("224", 224), (" 7 ", 7), ("320x240", (320, 240)), ("320X240", (320, 240)), ("320 , 240", (320, 240))],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "4x", "x4", "-4", "4.5", "4x4x4", "\u0663\u0662", "9" * 5000])
def test_other_text_is_refused_in_one_short_line(text):
    with pytest.raises(InputError, match=r"is neither a number of pixels nor WIDTHxHEIGHT") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 120
