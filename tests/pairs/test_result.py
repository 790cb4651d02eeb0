import csv
import io
import json
import math
from pathlib import Path

import pytest

from vggfeat import compare


def test_json_and_csv_hold_everything(picture, read, save):
    Path("a/bad.png").write_text("no picture")
    save("b/bad.png", picture(1))
    save('a/lone, or "alone".png', picture(1))
    save("b/one.png", read("a/one.png"))
    found = compare("a", "b", ("psnr", "lpips-alex"), layers=True)
    content = json.loads(found.as_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(content) == ["complete", "metadata", "pairs", "mean", "infinite", "unmatched", "failed"]
    assert content["complete"] is True
    assert [row["pair"] for row in content["pairs"]] == ["one.png", "sub/three.png", "two.png"]
    assert [row["psnr"] for row in content["pairs"]] == [None, *(row.values["psnr"] for row in found.rows[1:])]
    assert content["pairs"][2].items() >= {"a": "a/two.png", "b": "b/two.webp", "width": 40, "height": 40}.items()
    finite = [row.values["psnr"] for row in found.rows[1:]]
    assert content["mean"] == {**found.mean, "psnr": pytest.approx(sum(finite) / 2)}
    assert content["infinite"] == {"psnr": 1}
    assert "infinite (in JSON null)" in content["metadata"]["metrics"]["psnr"]["metric"]
    assert content["metadata"] == json.loads(json.dumps(found.metadata))
    assert content["unmatched"] == [{"picture": 'a/lone, or "alone".png', "reason": "no counterpart in 'b'"}]
    assert [(row["pair"], "not a picture" in row["reason"]) for row in content["failed"]] == [("bad.png", True)]

    rows = list(csv.DictReader(io.StringIO(found.as_csv())))
    assert list(rows[0]) == ["pair", "a", "b", "width", "height", *found.mean, "error", "metadata"]
    assert [row["pair"] for row in rows] == ["one.png", "sub/three.png", "two.png", "bad.png", "mean"]
    assert float(rows[0]["psnr"]) == math.inf
    for name, value in found.rows[1].values.items():
        assert float(rows[1][name]) == value
        assert float(rows[-1][name]) == found.mean[name]
    assert rows[3]["psnr"] == ""
    assert "not a picture" in rows[3]["error"]
    assert json.loads(rows[-1]["metadata"]) == {**content["metadata"], "infinite": {"psnr": 1}, "complete": True}


def test_where_all_are_infinite_so_is_the_mean():
    found = compare("a", "a", ("psnr", "ssim"))
    assert found.mean == {"psnr": math.inf, "ssim": pytest.approx(1)}
    assert found.infinite == {"psnr": 3}
    content = json.loads(found.as_json())
    assert content["mean"]["psnr"] is None
    assert content["infinite"] == {"psnr": 3}
