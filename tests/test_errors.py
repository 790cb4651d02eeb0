import pytest

from vggfeat.errors import near

WORDS = ("mean", "none", "Sum")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("man", "near are mean"),
        ("SUMM", "near are Sum"),
        ("xyz", "known are mean, none, Sum"),
        (None, "it is of type NoneType, known are mean, none, Sum"),
        (2, "it is of type int, known are mean, none, Sum"),
        (["mean"], "it is of type list, known are mean, none, Sum"),
    ],
)
def test_near(word, message):
    assert near(word, WORDS) == message
