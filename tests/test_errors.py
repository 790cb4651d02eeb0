import pytest

from vggfeat.errors import near

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
