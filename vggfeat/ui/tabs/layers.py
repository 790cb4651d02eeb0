"""The tab with the layer table of a network."""

from dataclasses import asdict

import gradio as gr

from vggfeat.networks import arch
from vggfeat.ui.tab import Tab


class Layers(Tab):
    """Looks up the layers of a network for a square picture."""

    title = "Layers"
    position = 4

    def build(self) -> None:
        """Create the tab's components and their events."""
        names = [name for name in arch.NETWORKS if arch.is_vgg(name)]
        with gr.Row():
            network = gr.Dropdown(names, value="vgg16", label="Network", filterable=False)
            side = gr.Slider(32, 1024, 224, step=1, label="Side of the picture", info="pixels")
        table = gr.Dataframe(
            layer_table("vgg16", 224),
            label="Layers; parameters and multiply-accumulates (macs) are cumulative",
            interactive=False,
            max_height=1400,
            buttons=["copy"],
            elem_id="layer-table",
        )
        for part in (network, side):
            self.on(part.change, layer_table, [network, side], table, queue=False, trigger_mode="always_last")


def layer_table(network: str, side: float) -> dict[str, list[object]]:
    """The layers of a network for a `side` x `side` picture: headers, and one list of cells per layer."""
    layers = [asdict(layer) for layer in arch.sized_layers(network, int(side))]
    return {
        "headers": [name.replace("_", " ") for name in layers[0]],
        "data": [[f"{value:,}" if isinstance(value, int) else value for value in layer.values()] for layer in layers],
    }
