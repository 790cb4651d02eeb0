import pytest

from vggfeat.errors import InputError
from vggfeat.transfer.styles import mixes
from vggfeat.transfer.styles.mixes import load_mix, parse_mix


@pytest.mark.parametrize(
    ("text", "file", "weights"),
    [
        ("waves", None, {"waves": 1}),
        (" waves : 2 , dots".replace(" : ", ":"), None, {"waves": 2, "dots": 1}),
        ("a/my.safetensors:waves", "a/my.safetensors", {"waves": 1}),
        ("my.safetensors", "my.safetensors", {}),
        ("my.safetensors:waves:2,dots:0.5", "my.safetensors", {"waves": 2, "dots": 0.5}),
        ("my.safetensors:waves,my.safetensors:dots", "my.safetensors", {"waves": 1, "dots": 1}),
        (r"C:\my.safetensors:waves:3", r"C:\my.safetensors", {"waves": 3}),
    ],
)
def test_mixes_are_read(text, file, weights):
    assert parse_mix(text) == (file, weights)


@pytest.mark.parametrize(
    "text",
    ["", "waves,", "waves:x", "waves:-1", "waves:inf", "waves:0", "waves,waves", "a.safetensors:x,b.safetensors:y"],
)
def test_what_is_no_mix_is_refused(text):
    with pytest.raises(InputError):
        parse_mix(text)


def test_names_are_checked_against_the_file(styles, tmp_path):
    path = tmp_path / "my.safetensors"
    styles.save(path)
    assert load_mix(f"{path}:dots")[1] == {"dots": 1}
    with pytest.raises(InputError, match=r"unknown instant style 'wave' of .*: did you mean waves\?"):
        load_mix(f"{path}:wave")
    with pytest.raises(InputError, match="has several styles, waves, dots"):
        load_mix(str(path))


def test_without_bundled_styles_the_way_to_train_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(mixes, "bundled_styles", lambda: tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"no styles are bundled .*`vggfeat train-style"):
        load_mix("waves")
