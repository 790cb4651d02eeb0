from pathlib import Path

import pytest
import torch

from vggfeat import read_picture

SHALLOW = ("--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1")
QUICK = (*SHALLOW, "--size", 64, "--first-size", 64, "--steps", 2)
pytestmark = pytest.mark.usefixtures("pictures")


def test_a_cell_for_each_weight_and_scale(vggfeat):
    arguments = (
        "sheet",
        "content.png",
        "style.jpg",
        *QUICK,
        "--style-weights",
        "100,1000",
        "--style-scales",
        "0.5,1",
    )
    result = vggfeat(*arguments)
    assert result.stdout == "content-style-sheet.png\n"
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == [
        f"cell {row * 2 + column + 1}/4: style weight {weight}"
        for row, weight in enumerate((100, 1000))
        for column in range(2)
    ]


def test_a_cell_is_what_stylize_paints(vggfeat):
    vggfeat("sheet", "content.png", "style.jpg", *QUICK, "--style-weights", 500, "--style-scales", 0.7, "-o", "s.png")
    options = ("--recipe", "preview", "--style-weight", 500, "--style-scale", 0.7)
    vggfeat("stylize", "content.png", "style.jpg", *QUICK, *options, "-o", "one.png")
    page, one = read_picture("s.png").rgb, read_picture("one.png").rgb
    corners = ((page - one[:, :, :1, :1]).abs().amax((0, 1)) < 1e-6).nonzero().tolist()
    assert any(torch.equal(page[:, :, y : y + 48, x : x + 64], one) for y, x in corners)


def test_a_cell_that_fails_costs_no_other(vggfeat):
    arguments = ("sheet", "content.png", "style.jpg", *QUICK, "--style-weights", 1000, "--style-scales", "1,1e9")
    result = vggfeat(*arguments, code=3)
    assert "cell 2/2: style weight 1000, style scale 1e+09: style scale is 1000000000.0" in result.stderr
    assert read_picture("content-style-sheet.png").rgb.shape[3] > 64


def test_a_sheet_without_any_cell_is_not_written(vggfeat):
    arguments = ("sheet", "content.png", "style.jpg", *QUICK, "--style-weights", 1000, "--style-scales", "1e9")
    result = vggfeat(*arguments, code=None)
    assert result.exit_code == 2
    assert "no cell could be painted: style scale is" in result.stderr
    assert not list(Path().glob("*-sheet*"))


def test_ctrl_c_writes_what_is_painted(vggfeat, end_at):
    end_at(4, KeyboardInterrupt)
    result = vggfeat("sheet", "content.png", "style.jpg", *QUICK, "-o", "out.png", code=130)
    assert "interrupted: 'out.png' holds 1 of 12 cells" in result.stderr
    assert Path("out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png", "style.jpg"], "cannot read 'absent.png'"),
        (["content.png", "style.jpg", "--style-scales", "1,big"], "'1,big' is not a list of numbers"),
        (["content.png", "style.jpg", "-o", "style.jpg"], "the output 'style.jpg' is one of the inputs"),
        (
            ["content.png", "style.jpg", "--recipe", "previw"],
            "unknown recipe 'previw', and not a .toml file: did you mean preview?",
        ),
    ],
)
def test_refusals(arguments, message, vggfeat):
    assert message in vggfeat("sheet", *arguments, code=2).stderr
    assert not list(Path().glob("*-sheet*"))
