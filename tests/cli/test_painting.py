"""What the commands that paint share: how a run is ended, resumed, watched, and what its picture keeps."""

import shlex
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image, ImageCms
from vggfeat_cli._recipes import chosen_recipe

from vggfeat import read_picture, write_picture
from vggfeat.errors import RecipeError
from vggfeat.pictures.images import Metadata, read_metadata
from vggfeat.transfer.loop import Progress

SMALL = ("--size", 32, "--first-size", 16, "--steps", 3)
SHALLOW = ("--style-layers", "relu1_1", "--content-layers", "relu1_1", "--first-size", 32, "--steps", 2)
COMMANDS = {
    "texture": ("in.png", *SMALL, "--style-layers", "relu1_1,relu2_1"),
    "dream": ("in.png", "--size", 32, "--octaves", 2, "--layer", "relu2_1", "--steps", 3),
    "invert": ("in.png", *SMALL, "--layer", "relu2_1"),
}
ALL = {**COMMANDS, "visualize": ("--size", 32, "--layer", "relu2_1", "--channel", 5, "--steps", 6)}


@pytest.fixture(autouse=True)
def picture(tmp_path):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "in.png", torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear"))


@pytest.mark.parametrize(
    ("command", "end", "code"),
    [
        ("texture", signal.SIGINT, 130),
        ("dream", signal.SIGTERM, 143),
        ("invert", signal.SIGINT, 130),
        ("visualize", signal.SIGINT, 130),
    ],
)
def test_a_signal_saves_the_picture_as_it_stands(command, end, code, vggfeat, end_at):
    end_at(5, end)
    result = vggfeat(command, *ALL[command], "-o", "out.png", code=code)
    assert "interrupted: 'out.png' holds the picture after" in result.stderr
    assert read_picture("out.png").rgb.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("command", "message"),
    [("sheet", "interrupted: 'out.webp' holds 1 of 12 cells"), ("animate", "interrupted: 'out.webp' holds 5 frames")],
)
def test_sigterm_keeps_what_there_is(command, message, vggfeat, end_at):
    end_at(5, signal.SIGTERM)
    options = ("--size", 32, "--first-size", 32, "--steps", 3 if command == "sheet" else 9, "-o", "out.webp")
    assert message in vggfeat(command, "in.png", "in.png", *options, code=143).stderr
    with Image.open("out.webp") as written:
        written.load()


def test_ctrl_c_before_the_first_step_saves_nothing(vggfeat, end_at):
    end_at(1, KeyboardInterrupt)
    result = vggfeat("texture", *COMMANDS["texture"], "-o", "out.png", "--checkpoint", "run.ckpt", code=130)
    assert "interrupted before there was anything to save" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["in.png"]


def test_an_error_on_the_way_saves_what_was_painted(vggfeat, end_at):
    end_at(2, MemoryError)
    result = vggfeat("texture", *COMMANDS["texture"], "-o", "out.png", code=None)
    assert result.exit_code == 2
    assert "out of memory at 16x16 pixels" in result.stderr
    assert read_picture("out.png").rgb.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("command", ["texture", "invert"])
def test_what_was_interrupted_goes_on_to_the_same_picture(command, vggfeat, end_at):
    """The checkpoint says with which recipe, and at which size; at the end there is one of the end."""
    vggfeat(command, *COMMANDS[command], "-o", "whole.png", "--seed", 3)
    end_at(4, KeyboardInterrupt)
    part = ("--checkpoint", "run.ckpt", "-o", "part.png")
    stderr = vggfeat(command, *COMMANDS[command], *part, "--seed", 3, code=130).stderr
    assert "--resume 'run.ckpt' continues from here" in stderr
    assert Path("part.png").read_bytes() != Path("whole.png").read_bytes()
    for _ in range(2):
        vggfeat(command, "in.png", "--resume", "run.ckpt", *part, "--save-every", 1)
        assert Path("part.png").read_bytes() == Path("whole.png").read_bytes()
    # Steps are counted from the first, also after an interruption.
    assert sorted(path.name for path in Path().glob("part-*")) == [f"part-000{number}.png" for number in (4, 5, 6)]
    wrong = vggfeat(command, "in.png", "--resume", "run.ckpt", "--seed", 4, "-o", "x.png", code=2)
    assert "the checkpoint belongs to another run, which differs in recipe (seed)" in wrong.stderr


@pytest.mark.parametrize("command", ["texture", "invert"])
def test_a_finished_run_takes_more_steps(command, vggfeat):
    options = (*COMMANDS[command], "--first-size", 32, "--quiet", "--json")
    vggfeat(command, *options, "--checkpoint", "run.ckpt", "-o", "a.png")
    vggfeat(command, "in.png", "--resume", "run.ckpt", "--steps", 5, "-o", "b.png")
    vggfeat(command, *options, "--steps", 5, "-o", "whole.png")
    assert Path("b.png").read_bytes() == Path("whole.png").read_bytes() != Path("a.png").read_bytes()
    stderr = vggfeat(command, "in.png", "--resume", "run.ckpt", "--steps", 2, "-o", "x.png", code=2).stderr
    assert "has taken 3 steps at 32x32 pixels, and the recipe has only 2" in stderr


@pytest.mark.parametrize("command", ["stylize", "dream", "invert"])
def test_a_small_picture_is_enlarged_if_asked(command, vggfeat):
    arguments = {**COMMANDS, "stylize": ("in.png", "in.png", *SHALLOW)}[command]
    for name, more, side in (("a.png", (), 32), ("b.png", ("--enlarge",), 48)):
        vggfeat(command, *arguments, "--size", 48, *more, "-o", name)
        assert read_picture(name).rgb.shape == (1, 3, side, side)
    if command != "dream":
        vggfeat(command, "in.png", *(("in.png",) * (command == "stylize")), "--recipe", "b.png", "-o", "c.png")
        assert Path("c.png").read_bytes() == Path("b.png").read_bytes()


def test_a_checkpoint_spares_what_is_read_and_what_is_written(vggfeat):
    for path, message in (("in.png", "is one of the inputs"), ("a/b", "no such folder")):
        assert message in vggfeat("invert", *COMMANDS["invert"], "--checkpoint", path, code=2).stderr
    assert "unknown ending '.svg'" in vggfeat("dream", *COMMANDS["dream"], "--plot", "losses.svg", code=2).stderr
    assert [path.name for path in Path().iterdir()] == ["in.png"]


@pytest.mark.parametrize("command", ["dream", "texture"])
def test_a_run_can_be_watched(command, vggfeat):
    vggfeat(command, *COMMANDS[command], "-o", "out.png", "--save-every", 4, "--plot", "losses.png")
    assert [path.name for path in Path().glob("out-*")] == ["out-0004.png"]
    with Image.open("losses.png") as chart:
        assert len(chart.convert("RGB").getcolors(100000)) > 3
        lines = {colour for _, colour in chart.convert("RGB").getcolors(100000) if max(colour) - min(colour) > 90}
    assert lines, "no line is drawn"


def test_a_chart_reads_no_loss_while_steps_run(vggfeat, monkeypatch):
    """Reading one waits for a GPU."""
    monkeypatch.setattr(Progress, "losses", property(lambda _: pytest.fail("a step waited")))
    vggfeat("texture", *COMMANDS["texture"], "-o", "out.png", "--plot", "losses.png", "--quiet")
    assert Path("losses.png").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_transparency_profile_and_depth_are_given_back(command, vggfeat):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = torch.ones(1, 1, 32, 32)
    alpha[..., :16] = 0
    write_picture("in.png", read_picture("in.png").rgb, alpha=alpha, icc=profile, bits=16)
    vggfeat(command, *COMMANDS[command], "-o", "out.png")
    painted = read_picture("out.png")
    assert (painted.bits, painted.icc) == (16, profile)
    assert (painted.alpha is None) == (command == "texture")
    assert command == "texture" or torch.equal(painted.alpha, alpha)


@pytest.mark.parametrize("command", [*COMMANDS, "stylize"])
def test_author_date_and_resolution_are_given_back(command, vggfeat):
    metadata = Metadata("Ann Lee", "© Ann", "2024-05-31 18:30:07", (300.0, 300.0))
    write_picture("in.png", read_picture("in.png").rgb, metadata=metadata)
    arguments = {**COMMANDS, "stylize": ("in.png", "in.png", *SHALLOW)}[command]
    for output in ("out.jpg", "out.png"):
        vggfeat(command, *arguments, "-o", output)
        painted = read_metadata(output)
        assert painted.dpi == pytest.approx((300, 300), abs=0.02)
        assert (painted.author, painted.copyright, painted.created) == ("Ann Lee", "© Ann", metadata.created)


@pytest.mark.parametrize("command", ALL)
def test_memory_is_kept_to(command, vggfeat):
    assert "pixels take" in vggfeat(command, *ALL[command], "--memory", "1MB", code=2).stderr
    assert "is not an amount of memory" in vggfeat(command, *ALL[command], "--memory", "much", code=2).stderr


@pytest.mark.parametrize("command", ALL)
def test_freed_memory_is_held_where_no_limit_is_given(command, vggfeat, monkeypatch):
    told = []
    monkeypatch.setattr("vggfeat.features.allocation.hold", lambda: told.append(1))
    vggfeat(command, *ALL[command], "--memory", "1GB")
    assert not told
    vggfeat(command, *ALL[command])
    assert told == [1]


def test_a_weights_file_says_which_network(tmp_path):
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={"vggfeat": '{"network": "vgg11", "layers": {}}'})
    chosen = chosen_recipe("texture", {"weights": str(path), "style_layers": "relu1_1:2", "steps": None})
    assert (chosen.network, dict(chosen.style_layers), chosen.name) == ("vgg11", {"relu1_1": 2.0}, "texture")
    with pytest.raises(RecipeError, match="unknown network"):
        chosen_recipe("texture", {"weights": str(path), "network": "vgg12"})


def test_the_picture_of_a_dream_says_how_it_was_made(vggfeat):
    vggfeat("dream", *COMMANDS["dream"], "-o", "a.png")
    stderr = vggfeat("recipe", "a.png", code=2).stderr
    assert "the picture 'a.png' is a dream, which has no recipe: `vggfeat dream in.png --" in stderr
    command = shlex.split(stderr.split("`")[1])
    vggfeat(*command[1:], "-o", "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert "is a dream" in vggfeat("stylize", "in.png", "in.png", "--recipe", "a.png", code=2).stderr
