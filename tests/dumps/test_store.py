import json

import numpy as np
import pytest

import vggfeat
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.run import Dumping
from vggfeat.dumps.store import Store

from .conftest import QUICK, hashes

OPTIONS = QUICK | {"reduce": "full", "shard_size": 3, "statistics": True}


def test_what_killed_runs_left_is_swept(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    whole = hashes(dump.path)
    (dump.path / "manifest.csv").unlink()
    (dump.path / "receipts/000002.json").unlink()
    for left in (
        *(
            ".run.json.tmp",
            ".vggfeat-0123456789abcdef.csv",
            ".manifest.csv.tmp",
            "relu1_1.full/.000002.npy.tmp",
            "receipts/.000002.json.tmp",
        ),
        *("relu1_1.full/000009.npy", "relu2_1.full/000002-40x48.npy", "receipts/000009.npz"),
    ):
        (dump.path / left).write_bytes(b"left")
    vggfeat.dump(pictures, dump.path, **OPTIONS)
    assert hashes(dump.path) == whole


def test_a_shard_stands_until_it_is_redone(pictures, tmp_path):
    good = (pictures / "004.png").read_bytes()
    (pictures / "004.png").write_text("no picture")
    out = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS | {"resize": None}).path
    (pictures / "004.png").write_bytes(good)
    run = Dumping(pictures, out, **OPTIONS | {"resize": None}, retry_failed=True)
    next(iter(run))
    assert sorted(path.stem for path in out.glob("receipts/*.json")) == ["000000", "000001", "000002", "000003"]
    assert not (out / "manifest.csv").exists()
    assert len(vggfeat.open_dump(out, partial=True)) == 10
    run.result()
    assert hashes(out) == hashes(vggfeat.dump(pictures, tmp_path / "whole", **OPTIONS | {"resize": None}).path)


@pytest.mark.parametrize("damage", ["cut", "gone", "receipt cut", "receipt of another", "receipt empty"])
def test_a_shard_that_is_not_whole_is_redone(damage, pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    whole = hashes(dump.path)
    payload, receipt = dump.path / "relu1_1.full/000001.npy", dump.path / "receipts/000001.json"
    match damage:
        case "cut":
            payload.write_bytes(payload.read_bytes()[:-1])
        case "gone":
            payload.unlink()
        case "receipt cut":
            receipt.write_bytes(receipt.read_bytes()[:100])
        case "receipt of another":
            receipt.write_bytes((dump.path / "receipts/000002.json").read_bytes())
        case "receipt empty":
            receipt.write_text("[]")
    assert sorted(Store(dump.path).receipts()) == [0, 2, 3]
    vggfeat.dump(pictures, dump.path, **OPTIONS)
    assert hashes(dump.path) == whole


def test_payloads_are_plain_npy_and_their_hashes_are_told(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    receipts = dump.receipts()
    told = {name: about["sha256"] for receipt in receipts.values() for name, about in receipt.files.items()}
    assert told == {name: digest for name, digest in hashes(dump.path).items() if name.endswith((".npy", ".npz"))}
    arrays = [np.load(dump.path / f"relu2_1.full/{number:06}.npy") for number in range(4)]
    assert [array.shape for array in arrays] == [(3, 128, 16, 16)] * 3 + [(2, 128, 16, 16)]
    assert Receipt.from_json(receipts[1].as_json()) == receipts[1]
    run = json.loads((dump.path / "run.json").read_text())
    assert run["fingerprint"]["weights"]["name"] == "random, seed 0"
    assert run["machine"]["algorithms"]["conv2_1"] == "torch"  # 64 channels are too few for Winograd's
