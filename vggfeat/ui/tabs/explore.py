"""The tab that shows what the channels of a layer respond to."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from vggfeat.networks import arch
from vggfeat.pictures import images
from vggfeat.ui import recipes, work
from vggfeat.ui.folders import PHOTOGRAPHS
from vggfeat.ui.limits import Upload
from vggfeat.ui.tab import Tab

_KINDS = ("relu", "pool", "conv")


class Explore(Tab):
    """Shows every channel of a layer, and one of them over the picture."""

    title = "Explore"
    position = 2

    def build(self) -> None:
        """Create the tab's components and their events."""
        networks = recipes.networks()
        explorer = work.Explorer(self.limits)
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                picture = self.upload("Picture")
                self.samples("Photographs to try", PHOTOGRAPHS, picture)
                network = gr.Dropdown(list(networks), value=networks[0], label="Network", filterable=False)
                kinds = gr.CheckboxGroup(list(_KINDS), value=list(_KINDS[:2]), label="Kinds of layers")
                layer = gr.Radio(_names(networks[0], _KINDS[:2]), value="relu3_3", label="Layer", elem_id="layer")
            with gr.Column(scale=7, min_width=320):
                channel = gr.ImageSlider(
                    label="Picture, channel", interactive=False, buttons=["fullscreen"], elem_id="channel"
                )
                facts = gr.Markdown(elem_id="facts")
                grid = gr.Gallery(
                    show_label=False,
                    height=560,
                    object_fit="contain",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="channels",
                    elem_classes="pictures",
                )

        def show_layer(payload: Mapping[str, str] | None, network: str, layer: str | None) -> tuple[Any, ...]:
            if not payload or layer not in _names(network, _KINDS):
                return None, None, ""
            upload = self.read(payload, "picture")
            found = explorer.grid(upload, network, layer)
            strongest = max(range(len(found.peaks)), key=lambda number: abs(found.peaks[number]))
            tiles = [(images.to_pil(tile[None]), str(number)) for number, tile in enumerate(found.tiles)]
            return tiles, show(upload, network, layer, strongest), _facts(found)

        def show_channel(
            payload: Mapping[str, str] | None, network: str, layer: str, event: gr.SelectData
        ) -> dict[str, Any]:
            return show(self.read(payload, "picture"), network, layer, event.index)

        def show(upload: Upload, network: str, layer: str, number: int) -> dict[str, Any]:
            below, above = explorer.channel(upload, network, layer, number)
            pictures = below, below.lerp(above, 0.7)
            label = f"Channel {number} of {layer}, {network}, over {upload.name}"
            return gr.update(value=tuple(map(images.to_pil, pictures)), label=label)

        for part in (network, kinds):
            self.on(part.change, _layer_choices, [network, kinds, layer], layer, queue=False)
        selection = [picture, network, layer]
        for part in selection:
            self.on(part.change, show_layer, selection, [grid, channel, facts], heavy=True, trigger_mode="always_last")
        self.on(grid.select, show_channel, selection, channel, heavy=True)


def _facts(grid: work.Grid) -> str:
    layer, (width, height) = grid.layer, grid.size
    return (
        f"**{layer.name}**: {len(grid.peaks)} channels of {width} x {height}, stride {layer.stride}, "
        f"receptive field {layer.receptive_field} pixels"
    )


def _layer_choices(network: str, kinds: Sequence[str], layer: str | None) -> dict[str, Any]:
    names = _names(network, kinds or _KINDS[:1])
    return gr.update(choices=names, value=layer if layer in names else names[len(names) // 2])


def _names(network: str, kinds: Sequence[str]) -> list[str]:
    return [layer.name for layer in arch.layers(network) if layer.kind in kinds]
