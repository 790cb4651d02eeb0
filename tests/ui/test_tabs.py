import pytest

from vggfeat import InputError
from vggfeat.networks import arch

gr = pytest.importorskip("gradio", reason="Gradio is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's, of its own dependencies


def test_the_layer_table_has_every_layer():
    from vggfeat.ui.tabs.layers import layer_table

    table = layer_table("vgg16", 224.0)
    assert [row[0] for row in table["data"]] == [layer.name for layer in arch.sized_layers("vgg16", 224)]
    first = dict(zip(table["headers"], table["data"][0], strict=True))
    assert (first["parameters"], first["receptive field"]) == ("1,792", "3")


def test_errors_reach_the_user_as_text():
    from vggfeat.ui.tab import shown_errors

    with pytest.raises(gr.Error) as error, shown_errors():
        raise InputError("'<script>' is not a picture")
    assert "&lt;script&gt;" in error.value.message
    assert "<script>" not in error.value.message
