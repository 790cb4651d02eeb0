"""Author, copyright, date and resolution go from file to file, whatever their formats."""

import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from vggfeat.errors import ImageError
from vggfeat.pictures.images import Metadata, read_metadata, read_picture, read_text, write_picture

RGB = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
FULL = Metadata("Zoë Ærø", "© 2024 Zoë, 日本", "2024-05-31 18:30:07", (300.0, 150.0))
XMP = """<?xpacket begin="" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmp:CreateDate="2024-05-31T18:30:07+02:00"><dc:creator><rdf:Seq><rdf:li>Zoë Ærø</rdf:li></rdf:Seq></dc:creator>
 <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© 2024 Zoë, 日本</rdf:li></rdf:Alt></dc:rights></rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


@pytest.mark.parametrize(
    ("ending", "bits"), [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("jpg", 8), ("webp", 8)]
)
def test_metadata_come_back(ending, bits, tmp_path):
    path = tmp_path / f"a.{ending}"
    write_picture(path, RGB, bits=bits, metadata=FULL, text={"Title": "noise"})
    found = read_metadata(path)
    assert found.dpi == pytest.approx(FULL.dpi, abs=0.02)
    assert (found.author, found.copyright, found.created) == (FULL.author, FULL.copyright, FULL.created)
    assert read_text(path)["Title"] == "noise"
    assert read_picture(path).rgb.shape == RGB.shape
    write_picture(path, RGB, bits=bits)
    assert read_metadata(path) == Metadata()


@pytest.mark.parametrize("ending", ["jpg", "webp", "tif", "png"])
def test_other_programs_read_them(ending, tmp_path):
    """Pillow's own reader is the oracle."""
    path = tmp_path / f"a.{ending}"
    write_picture(path, RGB, metadata=FULL)
    with Image.open(path) as image:
        if ending == "png":
            assert image.text == {"Author": FULL.author, "Copyright": FULL.copyright, "Creation Time": FULL.created}
            return
        exif = image.getexif()
        assert exif[ExifTags.Base.Artist].encode("latin-1").decode() == FULL.author
        assert exif[ExifTags.Base.DateTime] == "2024:05:31 18:30:07"
        if ending != "tif":
            taken = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]
            assert taken == "2024:05:31 18:30:07"


@pytest.mark.parametrize("ending", ["jpg", "webp", "tif", "png"])
def test_xmp_is_read(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    options = {"xmp": XMP.encode()}
    if ending == "png":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
    if ending == "tif":
        options = {"tiffinfo": {700: XMP.encode()}}
    Image.new("RGB", (6, 4)).save(path, **options)
    assert read_metadata(path) == Metadata(FULL.author, FULL.copyright, FULL.created)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Fri, 31 May 2024 18:30:07 GMT", "2024-05-31 18:30:07"),
        ("2024-05-31T18:30:07Z", "2024-05-31 18:30:07"),
        ("2024:05:31 18:30:07", "2024-05-31 18:30:07"),
        ("last spring", None),
        ("0000:00:00 00:00:00", None),
    ],
)
def test_dates_are_read_as_programs_write_them(written, read, tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Creation Time", written)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    assert read_metadata(tmp_path / "a.png").created == read


@pytest.mark.parametrize(
    "xmp", [b"<", b"\xff\xfe", XMP.replace("<x:", "<!DOCTYPE x [<!ENTITY a 'b'>]><x:", 1).encode()]
)
def test_damaged_metadata_are_left_out(xmp, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ann\0\n Lee "
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = 0.0, 72.0
    Image.new("RGB", (6, 4)).save(tmp_path / "a.webp", exif=exif, xmp=xmp)
    assert read_metadata(tmp_path / "a.webp") == Metadata(author="Ann Lee")


def test_a_turned_photograph_is_turned_once(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "Ann"
    Image.new("RGB", (12, 8)).save(tmp_path / "in.jpg", exif=exif)
    picture = read_picture(tmp_path / "in.jpg")
    assert picture.rgb.shape == (1, 3, 12, 8)
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        write_picture(tmp_path / name, picture.rgb, metadata=read_metadata(tmp_path / "in.jpg"))
        assert read_picture(tmp_path / name).rgb.shape == (1, 3, 12, 8)
        with Image.open(tmp_path / name) as image:
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert read_metadata(tmp_path / name).author == "Ann"


def test_a_picture_too_large_for_its_format_keeps_them(tmp_path):
    with pytest.raises(ImageError, match="it is saved as") as told:
        write_picture(tmp_path / "a.webp", torch.zeros(1, 3, 1, 16384), metadata=FULL)
    assert told.value.saved_as == tmp_path / "a.png"
    assert read_metadata(tmp_path / "a.png").author == FULL.author
