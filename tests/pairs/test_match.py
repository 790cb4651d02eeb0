from pathlib import Path

import pytest

from vggfeat import InputError, compare
from vggfeat.pairs.match import match_pictures


def test_matching(picture, save):
    for name in ("b/only.png", "a/.hidden.png", "a/notes.txt", "a/.git/x.png", "a/odd.png", "b/odd.webp", "b/odd.tif"):
        save(f"{name}.png", picture(1)) if name.endswith("txt") else save(name, picture(1))
    Path("a/notes.txt.png").rename("a/notes.txt")
    found, unmatched, pictures = match_pictures("a", "b")
    assert {str(path) for path in pictures} == {str(path) for pair in found for path in (pair.a, pair.b)} | {*unmatched}
    assert [(pair.name, str(pair.b)) for pair in found] == [
        ("one.png", "b/one.png"),
        ("sub/three.png", "b/sub/three.png"),
        ("two.png", "b/two.webp"),
    ]
    assert unmatched == {
        "b/only.png": "no counterpart in 'a'",
        "a/odd.png": "odd.tif, odd.webp in 'b' could be its counterpart, endings differ",
        "b/odd.tif": "odd.png in 'a' could be its counterpart, endings differ",
        "b/odd.webp": "odd.png in 'a' could be its counterpart, endings differ",
    }


def test_the_same_name_comes_before_the_same_stem(picture, save):
    save("a/two.webp", picture(1))
    found, unmatched, _ = match_pictures("a", "b")
    assert [str(pair.a) for pair in found if pair.b.name == "two.webp"] == ["a/two.webp"]
    assert unmatched == {"a/two.png": "no counterpart in 'b'"}


def test_names_that_differ_in_case_alone_are_pointed_at(picture, save):
    save("a/sub/UP.png", picture(1))
    save("b/sub/up.webp", picture(1))
    assert match_pictures("a", "b").unmatched == {
        "a/sub/UP.png": "no counterpart in 'b', whose sub/up.webp differs in upper and lower case",
        "b/sub/up.webp": "no counterpart in 'a', whose sub/UP.png differs in upper and lower case",
    }
    save("c/ONE.png", picture(1))
    with pytest.raises(InputError, match=r"'c/ONE\.png' has no counterpart in 'a', whose one\.png differs in upper"):
        match_pictures("a", "c")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("a", "", "has an empty name"),
        ("a", "b/sub", r"no picture of 'a' \(one.png, sub/three.png, ...\) has the name of one of 'b/sub' \(three.png"),
        ("a", "empty", r"of 'empty' \(no pictures\)"),
        ("a", "b/one.png", "'a' is a folder and 'b/one.png' is not a folder: compare two pictures or two folders"),
        ("a/one.png", "b", "'b' is a folder and 'a/one.png' is not a folder"),
        ("a", "absent", "'a' is a folder and 'absent' is not there"),
    ],
)
def test_nothing_to_compare(a, b, message):
    Path("empty").mkdir()
    with pytest.raises(InputError, match=message):
        compare(a, b)
