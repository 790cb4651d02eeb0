import json
from pathlib import Path

import pytest
import scenes
import torch

from vggfeat import (
    InstantStyles,
    fast_stylize,
    fast_stylize_frames,
    open_clip,
    read_picture,
    write_clip,
    write_picture,
)
from vggfeat.pictures import images
from vggfeat.transfer.styles import mixes
from vggfeat.transfer.styles.network import StyleNetwork
from vggfeat.transfer.styles.widths import StyleWidths


@pytest.fixture(autouse=True)
def _styles(tmp_path, pictures, monkeypatch):  # noqa: ARG001 (commands read its files)
    """A file of two styles, and none that is bundled."""
    network = StyleNetwork(["waves", "dots"], StyleWidths(4, 4, 8, blocks=1), seed=1)
    network.gate.data[1] = -0.5
    InstantStyles(network).save(tmp_path / "my.safetensors")
    monkeypatch.setattr(mixes, "bundled_styles", lambda: tmp_path / "none.safetensors")


def test_paints_at_the_size_of_the_content(vggfeat):
    result = vggfeat("stylize", "content.png", "--fast", "my.safetensors:dots")
    assert result.stdout == "content-dots.png\n"
    expected = fast_stylize("content.png", "my.safetensors:dots")
    assert torch.equal(read_picture("content-dots.png").rgb, images.from_pil(images.to_pil(expected)).rgb)


def test_mixes_strength_size_and_json(vggfeat):
    mix = "my.safetensors:waves:3,dots:1"
    options = ("--strength", 0.4, "--size", 40, "-o", "out.png", "--json", "--memory", "1GB")
    facts = json.loads(vggfeat("stylize", "content.png", "--fast", mix, *options).stdout)
    assert (facts["width"], facts["height"], facts["styles"]) == (40, 30, {"waves": 3, "dots": 1})
    expected = fast_stylize("content.png", mix, strength=0.4, size=40)
    assert torch.allclose(read_picture("out.png").rgb, expected, atol=0.003)


def test_transparency_stays(vggfeat):
    alpha = torch.zeros(1, 1, 20, 30)
    alpha[..., :15] = 1
    write_picture("clear.png", torch.rand(1, 3, 20, 30), alpha=alpha)
    vggfeat("stylize", "clear.png", "--fast", "my.safetensors:dots", "-o", "out.png")
    assert torch.equal(read_picture("out.png").alpha, alpha)


def test_folders_are_painted_once_and_failures_named(vggfeat, tmp_path):
    (tmp_path / "frames").mkdir()
    for name in ("b2.png", "b10.png"):
        write_picture(f"frames/{name}", torch.rand(1, 3, 20, 24))
    (tmp_path / "frames" / "broken.png").write_bytes(b"none")
    arguments = ("stylize", "frames", "--fast", "my.safetensors:dots", "-o", "out")
    result = vggfeat(*arguments, code=3)
    assert result.stdout.split() == ["out/b2.png", "out/b10.png"]
    assert "1 of 3 could not be painted: frames/broken.png" in result.stderr
    assert "frames/b2.png: already painted" in vggfeat(*arguments, code=3).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fast", "my.safetensors:dot"), "unknown instant style 'dot' of 'my.safetensors': did you mean dots?"),
        (("--fast", "my.safetensors"), "has several styles, waves, dots"),
        (("--fast", "dots"), "no styles are bundled"),
        (("--fast", "content.safetensors:dots"), "no such file"),
        (("--fast", "my.safetensors:dots", "--steps", "3"), "--fast cannot be combined with --steps"),
        (("--fast", "my.safetensors:dots", "--style", "style.jpg"), "--fast cannot be combined with --style"),
        (("--fast", "my.safetensors:dots", "--strength", "2"), "--strength"),
        (("--fast", "my.safetensors:dots", "-o", "content.png"), "is one of the inputs"),
        (("--fast", "my.safetensors:dots", "-o", "out.gif"), "out.gif"),
        (("moving.gif", "--fast", "my.safetensors:dots", "-o", "out"), "paint one clip at a time"),
        (("--fast", "my.safetensors:dots", "--flow", "ilk"), "--flow needs a clip or --sequence"),
        (("--fast", "my.safetensors:dots", "--fps", "3"), "--fps needs a clip"),
        (("--fast", "my.safetensors:dots", "--sequence"), "--sequence is for several contents"),
        (("--fast", "my.safetensors:dots", "--memory", "10kb"), "even in small blocks"),
        (("style.jpg", "--strength", "0.5"), "--strength needs --fast"),
    ],
)
def test_what_cannot_be_painted_is_said_in_one_line(vggfeat, options, message):
    write_clip("moving.gif", torch.rand(2, 3, 24, 32), fps=10)
    assert message in vggfeat("stylize", "content.png", *options, code=2).stderr


def test_a_painting_says_how_it_was_made(vggfeat):
    vggfeat("stylize", "content.png", "--fast", "my.safetensors:dots", "-o", "out.png")
    record = json.loads(images.read_text("out.png")["vggfeat-fast"])
    assert record["styles"] == {"dots": 1}
    assert [item["role"] for item in record["inputs"]] == ["content", "styles"]
    assert "`vggfeat stylize --fast` paints it" in vggfeat("recipe", "out.png", code=2).stderr


def painted(frames):
    return [images.from_pil(images.to_pil(frame)).rgb for frame in frames]


def test_the_frames_of_a_clip_are_blended_and_an_interrupted_run_goes_on(vggfeat, monkeypatch):
    pytest.importorskip("skimage")
    write_clip("moving.webp", scenes.clip(3), fps=10)
    frames = [frame.picture.rgb for frame in open_clip("moving.webp")]
    arguments = ("stylize", "moving.webp", "--fast", "my.safetensors:dots", "--flow", "ilk", "--steadiness", 2)
    facts = json.loads(vggfeat(*arguments, "--json").stdout)
    assert (facts["output"], facts["frames"], facts["styles"]) == ("moving-dots.webp", 3, {"dots": 1})
    vggfeat(*arguments, "-o", "whole/")
    expected = fast_stylize_frames(frames, "my.safetensors:dots", flow="ilk", steadiness=2)
    for number, frame in enumerate(painted(expected), 1):
        assert (read_picture(f"whole/{number:06}.png").rgb - frame).abs().max() < 1.5 / 255
    with monkeypatch.context() as patch:
        found = []

        def interrupt(*arguments, paint=images.write_picture, **options):
            found.append(1)
            if len(found) == 3:
                raise KeyboardInterrupt
            paint(*arguments, **options)

        patch.setattr(images, "write_picture", interrupt)
        assert "continues with the next one" in vggfeat(*arguments, "-o", "out/", code=130).stderr
    assert "differs in strength" in vggfeat(*arguments, "-o", "out/", "--strength", 0.5, code=2).stderr
    vggfeat(*arguments, "-o", "out/")
    for path in Path("whole").glob("*.png"):
        assert path.read_bytes() == Path("out", path.name).read_bytes()


def test_a_sequence_of_frames_is_blended(vggfeat):
    pytest.importorskip("skimage")
    Path("in").mkdir()
    for number, frame in enumerate(scenes.clip(2).split(1)):
        write_picture(f"in/{number}.png", frame)
    arguments = ("stylize", "in", "--fast", "my.safetensors:dots")
    vggfeat(*arguments, "-o", "single")
    vggfeat(*arguments, "-o", "steady", "--sequence", "--flow", "ilk")
    single, steady = (
        [Path(folder, f"{number}.png").read_bytes() for number in (0, 1)] for folder in ("single", "steady")
    )
    assert single[0] == steady[0]
    assert single[1] != steady[1]
