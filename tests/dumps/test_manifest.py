import csv
import io
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


def plain(count):
    """Entries whose texts csv would not quote, with digits of many lengths."""
    return [replace(entry, id=f"ä{place}/x y.png", error="") for place, entry in enumerate(entries(count))]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "cut"])
@pytest.mark.parametrize("quoted", [(), (0,), (150,), range(299)], ids=["none", "first", "one", "most"])
@pytest.mark.parametrize("block", [97, 5000])
def test_blocks_end_where_lines_do(block, quoted, last, line_end, tmp_path, monkeypatch):
    """Whatever the bytes that are read at a time; a quoted field may be longer than these."""
    monkeypatch.setattr("vggfeat.dumps.manifest._BLOCK_BYTES", block)
    written = plain(300)
    for place in quoted:
        written[place] = replace(written[place], error=f'"{place}"\n\n"{"x," * (place % 100)}\n' * 2)
    path = tmp_path / "manifest.csv"
    write_manifest(path, "csv", written)
    text = path.read_bytes()
    if line_end == "\r\n":
        rows = list(csv.reader(io.StringIO(text.decode(), newline="")))
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    elif not last:
        path.write_bytes(text.removesuffix(b"\n"))
    found = read_manifest(tmp_path)
    assert list(found) == written
    assert found.texts("error") == [entry.error for entry in written]
    assert found[157] == written[157]


def test_plain_lines_are_read_without_csv(tmp_path, monkeypatch):
    write_manifest(tmp_path / "manifest.csv", "csv", plain(300))
    expected = read_manifest(tmp_path)
    monkeypatch.setattr("vggfeat.dumps.manifest._block_of", None)
    assert read_manifest(tmp_path) == expected


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("a,b,c,1,ok,,0,0,1\n", "a line has more or fewer fields"),
        ("a,b,c,1,ok,,0,0,1,1,1\na,b,c,1,ok,,0,0,1\n", "a line has more or fewer fields"),
        ("a,b,c,1,ok,,0,0,1,\n", "invalid literal"),
        ("a,b,c,-,ok,,0,0,1,1\n", "invalid literal"),
        ("a,b,c,99999999999999999999,ok,,0,0,1,1\n", "too large|too big"),
        ("a\udcff,b,c,1,ok,,0,0,1,1\n", "can't decode"),
        ('"a,b,c,1,ok,,0,0,1,1\n', "fewer fields"),
    ],
)
def test_damage_among_plain_lines_is_said(wrong, reason, tmp_path):
    path = tmp_path / "manifest.csv"
    write_manifest(path, "csv", plain(3))
    path.write_bytes(path.read_bytes() + wrong.encode("utf-8", "surrogateescape"))
    with pytest.raises(VggfeatError, match=reason):
        read_manifest(tmp_path)


def test_numbers_that_only_python_reads(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text(",".join(COLUMNS) + "\na,b,c, 1_0,ok,,+2,-0,007,0\n")
    [found] = read_manifest(tmp_path)
    assert (found.size, found.shard, found.offset, found.height) == (10, 2, 0, 7)
