"""The code of docs/guide.md runs as it stands, but for what would take hours."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from vggfeat import FeatureExtractor

GUIDE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text(encoding="utf-8")
USES, WRITE_UPS = GUIDE.split("## VGG write-ups")
BLOCKS = re.findall(r"```python\n(.*?)```", WRITE_UPS, re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.mark.slow
def test_the_three_uses_print_what_the_guide_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", USES, re.DOTALL)
    assert len(blocks) == USES.count("```python") == 4
    for code, expected in blocks:
        exec(compile(code, "guide.md", "exec"), names)  # noqa: S102 (the guide's own code)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
        came, stated = ([float(number) for number in NUMBER.findall(text)] for text in (printed, expected))
        assert came == pytest.approx(stated, rel=0.1, abs=0.02)  # other processors round otherwise


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(BLOCKS)
    # Digits for STL10, a network that trains in a moment for VGG-16, and no head of 123 million weights.
    for old, new in (
        ('train("stl10"', 'train("digits"'),
        ('network="D"', 'network="4,M,4,M,4,4,4"'),
        ('head="paper"', 'head="paper", hidden=8, size=8'),
        ("epochs=60", "epochs=1"),
        ('vgg("D")', 'vgg("D", device="meta")'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    names = {}
    exec(compile(text, "guide.md", "exec"), names)  # noqa: S102 (the guide's own code)
    assert names["logits"].shape == (2, 10)
    assert names["relu3_3"].shape == (1, 256, 16, 16)
    assert names["features"]["relu3_3"].shape == (1, 256, 8, 8)
    assert names["run"].recipe.row().slope == 0.1
    assert names["extract"].network == "4,M,4,M,4,4,4+bn+leaky_relu:0.1"


def test_the_index_of_the_write_ups_is_relu3_3(images):
    model = torchvision.models.vgg16(weights=None).features
    slice_ = model[:16]
    for module in slice_:
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    tap = FeatureExtractor.of(model, "relu3_3", mean=(0, 0, 0), std=(1, 1, 1))
    with torch.no_grad():
        torch.testing.assert_close(tap(images)["relu3_3"], slice_(images))
