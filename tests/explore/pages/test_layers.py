import pytest
import torch

from vggfeat import InputError, vgg
from vggfeat.explore import view
from vggfeat.explore.pages import canvas, layers
from vggfeat.explore.pages.layers import sheet


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 3, 60, 90, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(picture):
    return view.inspect(picture, "relu1_1,conv3_1", weights=None)


@pytest.fixture
def words(monkeypatch):
    """What is written on the page."""
    written = []
    write = canvas.Canvas.write

    def watch(page, x, y, text, **options):
        width = write(page, x, y, text, **options)
        left = {"la": x, "ma": x - width / 2, "ra": x - width}[options.get("anchor", "la")]
        assert left >= 0
        assert left + width <= page.image.width, text
        assert y + options.get("size", 14) <= page.image.height, text
        written.append(text)
        return width

    monkeypatch.setattr(canvas.Canvas, "write", watch)
    return written


def rows(words):
    """The channels beneath each layer's name."""
    found = {}
    for word in words:
        if word in ("relu1_1", "conv3_1"):
            found[word] = name = []
        elif word.isdecimal() and found and len(word) < 4:
            name.append(int(word))
    return found


def test_a_row_a_layer_with_every_channel(seen, words):
    page = sheet(seen)
    assert page.shape[:2] == (1, 3)
    assert page.shape[3] == 1680
    labels = rows(words)
    assert set(range(64)) <= set(labels["relu1_1"])
    assert set(range(256)) <= set(labels["conv3_1"])
    assert "64 channels of 90 x 60 · stride 1 · each position sees 3 x 3 pixels" in words
    assert "256 channels of 22 x 15 · stride 4 · each position sees 24 x 24 pixels" in words
    assert any("blue" in word for word in words)


def test_the_most_active_channels(seen, words):
    sheet(seen, top=3)
    for name, features in seen.features.items():
        chosen = view.most_active(features, 3)
        peaks = [f"{max(features[0, channel].flatten(), key=abs):.3g}" for channel in chosen]
        place = words.index(str(chosen[0]), words.index(name))
        assert words[place : place + 6] == [word for pair in zip(map(str, chosen), peaks, strict=True) for word in pair]


def test_fully_connected_layers_show_the_most_active_units(picture, words):
    state = vgg("4,M,8", num_classes=3, hidden=70, seed=0).state_dict()
    found = view.inspect(picture, "fc7,fc8", "4,M,8", weights=state, device="cpu")
    sheet(found)
    start, end = words.index("fc7"), words.index("fc8")
    chosen = view.most_active(found.features["fc7"], 64)
    assert [word for word in words[start:end] if word.isdecimal() and "." not in word][: len(chosen)] == [
        str(channel) for channel in chosen
    ]
    assert any("the 64 most active channels" in word for word in words[start:end])
    assert not any("most active" in word for word in words[end:])
    words.clear()
    sheet(view.inspect(picture, "fc7", "4,M,8", weights=state, device="cpu"), channels=range(70))
    assert {str(channel) for channel in range(70)} <= set(words)


def test_tiles_hold_their_channels(seen):
    page = layers.layout(300, seen, 64, panels=3)
    assert page.columns == 8
    sheet_of = sheet(
        view.Inspection(seen.picture, {"relu1_1": seen.features["relu1_1"]}, seen.layers[:1], (90, 60), "x", "y")
    )
    row = layers.layout(layers.HEADER, seen, 64, panels=3)
    maps = view.channel_maps(seen.features["relu1_1"], range(64))
    for channel in (0, 9, 63):
        x, y = row.corner(channel)
        tile = sheet_of[..., y : y + row.tile[0], x : x + row.tile[1]]
        assert (tile - canvas.scaled(maps[channel][None], *row.tile)).abs().max() <= 1 / 255


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13, 40, 64, 128, 256, 512])
@pytest.mark.parametrize("size", [(60, 90), (90, 60), (40, 400), (400, 40)])
@pytest.mark.parametrize("panels", [3, 4])
def test_nothing_overlaps_and_all_is_on_the_page(count, size, panels, seen):
    one = view.Inspection(torch.zeros(1, 3, *size), seen.features, seen.layers, size, "x", "y")
    row = layers.layout(200, one, count, panels=panels)
    height, width = row.tile
    boxes = [(*row.corner(number), width, height + layers.LABEL) for number in range(count)]
    boxes += [
        (36 + number * (row.panel[1] + 14), 200 + 48, row.panel[1], row.panel[0] + 26) for number in range(panels)
    ]
    for x, y, across, down in boxes:
        assert 0 <= x < x + across <= 1680 - 30
        assert 200 <= y < y + down <= row.bottom
    taken = torch.zeros(row.bottom, 1680, dtype=torch.uint8)
    for x, y, across, down in boxes:
        taken[y : y + down, x : x + across] += 1
    assert taken.max() == 1
    shape = size[1] / size[0]
    assert width / height == pytest.approx(shape, rel=0.1) or min(width, height) < 20
    assert max(width, height) >= 90


def test_what_a_position_sees(seen, words):
    page = sheet(seen, top=2, at=(70, 10))
    assert "receptive field of position 17,2" in words
    assert "its 24 x 24 pixels; padding is grey" in words
    assert "the picture" not in words
    plain = sheet(seen, top=2)
    assert page.shape[3] == plain.shape[3]
    accent = torch.tensor(canvas.ACCENT).reshape(1, 3, 1, 1) / 255
    assert ((page - accent).abs().amax(1) < 1e-3).sum() > 4 * 5
    assert not ((plain - accent).abs().amax(1) < 1e-3).any()
    with pytest.raises(InputError, match="outside the picture"):
        sheet(seen, at=(90, 10))


def test_bad_input(seen):
    with pytest.raises(InputError, match="no channel 64 in relu1_1: choose from 0 to 63"):
        sheet(seen, channels=[3, 64])
    with pytest.raises(InputError, match="channels and top cannot both be given"):
        sheet(seen, channels=[3], top=4)
    with pytest.raises(InputError, match="channels is empty"):
        sheet(seen, channels=[])
    with pytest.raises(InputError, match="the page would have 9000x9000 pixels"):
        canvas.Canvas(9000, 9000)


def test_titles_of_any_name():
    page = canvas.Canvas(300, 40)
    assert page.write(0, 0, "a long name that goes on and on", width=100) <= 100
    assert page.write(0, 0, "Größe") == canvas.Canvas(9, 9).write(0, 0, "Gro?e")
    assert canvas.contain(10, 1000, 50, 100) == (1, 100)
