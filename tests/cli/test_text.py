import pytest
from vggfeat_cli._text import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sub/été 写真\u3000.png", "sub/été 写真\u3000.png"),
        ("a\nb\t\x1b[2J\x7f\x9b", r"a\nb\t\x1b[2J\x7f\x9b"),
        ("\u202egnp.\u2066\u2028\u200b", r"\u202egnp.\u2066\u2028\u200b"),
        ("\ufffd\udcff", "\ufffd\\udcff"),
    ],
)
def test_printable(text, shown):
    assert escaped(text) == shown
