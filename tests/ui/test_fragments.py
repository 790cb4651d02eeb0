import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from vggfeat.networks import arch
from vggfeat.ui import fragments


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("side", [16, 200])
def test_pictures_travel_inside_the_page(side):
    picture = torch.linspace(0, 1, side).expand(1, 3, side, side)
    image = decoded(fragments.data_uri(picture))
    assert image.size == (side, side)
    assert np.abs(np.asarray(image)[..., 0] / 255 - picture[0, 0].numpy()).max() < 0.05
    assert decoded(fragments.data_uri(picture, picture[:, :1])).mode == "RGBA"


def test_what_others_wrote_is_text():
    for html in (
        fragments.figure("data:", "<script>", "<b>"),
        fragments.overlay("data:", "data:", "<script>", "<b>"),
        fragments.note("<b>"),
        fragments.waiting("<b>", "<script>"),
        fragments.choices([('"><script>', "data:", '"><script>')], '"><script>'),
    ):
        assert "<script>" not in html
        assert "<b>" not in html


def test_the_layer_table_has_every_layer():
    html = fragments.layers("vgg16", 224)
    for layer in arch.sized_layers("vgg16", 224):
        assert f'<th scope="row">{layer.name}</th>' in html
    assert "1\u202f792" in html


def test_every_slider_and_choice_has_a_name():
    for html in (
        fragments.wipe("a", "b"),
        fragments.overlay("a", "b", "t", "f"),
        fragments.choices([("a", "b", "c")], "d"),
    ):
        assert html.count("<input") + html.count("<button") == html.count('aria-label="') - html.count('role="group"')
