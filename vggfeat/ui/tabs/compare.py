"""The tab that measures how far two pictures are apart."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from vggfeat.pictures import images
from vggfeat.ui import work
from vggfeat.ui.tab import Tab

_METRICS = {
    "lpips-vgg": ("LPIPS (VGG)", "perceptual distance by VGG-16 features; 0 for equal pictures"),
    "dists": ("DISTS", "distance of structure and texture; 0 for equal pictures"),
    "psnr": ("PSNR", "decibels, from the pixels only; infinite for equal pictures"),
    "ssim": ("SSIM", "similarity of local structure; 1 for equal pictures"),
}


class Compare(Tab):
    """Compares two pictures by metrics, by a heat map, and side by side."""

    title = "Compare"
    position = 3

    def build(self) -> None:
        """Create the tab's components and their events."""
        with gr.Row():
            first, second = self.upload("First picture"), self.upload("Second picture")
        go = gr.Button("Compare", variant="primary", elem_id="compare")
        table = gr.Dataframe(
            headers=["metric", "value", "meaning"],
            label="Distances",
            interactive=False,
            wrap=True,
            buttons=["copy"],
            visible=False,
            elem_id="metrics",
        )
        notes = gr.Markdown(elem_id="notes")
        with gr.Row():
            heat = gr.Image(interactive=False, buttons=["fullscreen"], visible=False, elem_id="heat")
            pair = gr.ImageSlider(
                label="First picture, second picture",
                interactive=False,
                buttons=["fullscreen"],
                visible=False,
                elem_id="pair",
            )
        self.on(go.click, self._compare, [first, second], [table, notes, heat, pair], heavy=True)

    def _compare(self, first: Mapping[str, str] | None, second: Mapping[str, str] | None) -> tuple[Any, ...]:
        a, b = self.read(first, "first picture"), self.read(second, "second picture")
        found = work.compared(a, b, self.limits)
        table = [[_METRICS[name][0], _number(value), _METRICS[name][1]] for name, value in found.values.items()]
        scale = f"Where they differ: black is equal, white is LPIPS {found.heat_top:g} and above"
        return (
            gr.update(value=table, visible=True),
            "\n\n".join(found.notes),
            gr.update(value=images.to_pil(found.heat), label=scale, visible=True),
            gr.update(value=(images.to_pil(found.a), images.to_pil(found.b)), visible=True),
        )


def _number(value: float) -> str:
    return "∞" if value == float("inf") else f"{value:z.4f}"
