"""The code of the guide runs as printed, except for what takes hours."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from vggfeat import FeatureExtractor

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
WITH_OUTPUT = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "count"), [("losses", 1), ("stylize", 1), ("dump", 2)])
def test_the_code_prints_what_the_guide_says(page, count, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = WITH_OUTPUT.findall((GUIDE / f"{page}.md").read_text("utf-8").rpartition("\n## ")[2])
    assert len(blocks) == count
    for code, expected in blocks:
        exec(compile(code, f"{page}.md", "exec"), names)  # noqa: S102 (the guide's own code)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
        came, stated = ([float(number) for number in NUMBER.findall(text)] for text in (printed, expected))
        assert came == pytest.approx(stated, rel=0.1, abs=0.02)  # other processors round otherwise


def test_every_output_belongs_to_a_test():
    assert sum(page.read_text("utf-8").count("```text") for page in GUIDE.glob("*.md")) == 4


def test_the_code_of_the_write_ups_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (GUIDE / "networks.md").read_text("utf-8").partition("## VGG write-ups")[2]
    text = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
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
    exec(compile(text, "networks.md", "exec"), names)  # noqa: S102 (the guide's own code)
    assert names["logits"].shape == (2, 10)
    assert names["relu3_3"].shape == (1, 256, 16, 16)
    assert names["features"]["relu3_3"].shape == (1, 256, 8, 8)
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
