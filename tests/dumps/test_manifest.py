import csv
from dataclasses import replace

import pytest

from vggfeat.dumps.manifest import COLUMNS, FORMATS, Manifest, ManifestEntry, read_manifest, write_manifest
from vggfeat.errors import VggfeatError


def entries(count):
    return [
        ManifestEntry(
            id=f"ä{place}" if place % 3 else f'{place}\r\n"x", \'',
            path="" if place % 5 == 0 else f"folder/{place}.png",
            sha256=f"{place:064x}",
            size=place * 2**33,
            status="failed" if place % 7 == 2 else "ok",
            error="cannot read" if place % 7 == 2 else "",
            shard=place // 4,
            offset=-1 if place % 7 == 2 else place % 4,
            height=place,
            width=2 * place,
        )
        for place in range(count)
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 256, 1001])
def test_what_is_written_is_read(form, count, tmp_path):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    written = entries(count)
    write_manifest(tmp_path / f"manifest.{form}", form, written)
    found = read_manifest(tmp_path)
    assert list(found) == written
    places = [*range(0, count, 17), *range(-count, 0, 17)]
    assert [found[place] for place in places] == [written[place] for place in places]
    assert len(found) == count
    assert found.texts("id") == [entry.id for entry in written]
    assert found.ok.tolist() == [entry.ok for entry in written]
    assert found == Manifest.of(written)
    assert found != written
    if count:
        assert found != Manifest.of(written[1:])
        with pytest.raises(IndexError):
            found[count]
    assert found[2:900:3] == tuple(written[2:900:3])


def test_columns_may_be_in_any_order_and_more(tmp_path):
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        names = ["label", *reversed(COLUMNS)]
        table = csv.DictWriter(file, names)
        table.writeheader()
        for entry in entries(9):
            table.writerow({"label": "cat"} | {name: getattr(entry, name) for name in COLUMNS})
    found = read_manifest(tmp_path)
    assert found.columns == ("label",)
    assert list(found) == [replace(entry, columns={"label": "cat"}) for entry in entries(9)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no column id"), ("id,path\na,b\n", "no column sha256"), (",".join(COLUMNS) + "\na,b\n", "fewer fields"),
     (",".join(COLUMNS) + "\na,b,c,1,ok,,x,0,1,1\n", "invalid literal")],
)  # fmt: skip
def test_a_damaged_table_is_said(text, reason, tmp_path):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(VggfeatError, match=reason):
        read_manifest(tmp_path)
