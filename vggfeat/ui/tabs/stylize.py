"""The tab that paints a photograph in a style."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from html import escape
from importlib import import_module
from math import log10
from typing import Any

import gradio as gr

from vggfeat import files
from vggfeat.pictures import images
from vggfeat.transfer.recipe import CHOICES, RECIPES, Recipe, format_recipe
from vggfeat.ui import recipes, work
from vggfeat.ui.folders import PHOTOGRAPHS, STYLES
from vggfeat.ui.limits import sent_file
from vggfeat.ui.tab import Tab, shown_errors


class Stylize(Tab):
    """Paints the content in the style, and shows the painting and its loss while they change."""

    title = "Stylize"
    position = 1

    def build(self) -> None:
        """Create the tab's components and their events."""
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                with gr.Row():
                    content, style = self.upload("Content"), self.upload("Style")
                self.samples("Styles to try", STYLES, style, is_open=True)
                self.samples("Photographs to try", PHOTOGRAPHS, content)
                recipe = self._recipe()
            with gr.Column(scale=6, min_width=320):
                with gr.Row():
                    go = gr.Button("Paint", variant="primary", elem_id="paint")
                    stop = gr.Button("Stop and keep", elem_id="stop")
                status = gr.HTML("Choose a photograph and a style, then press Paint.", padding=True, elem_id="status")
                painting = gr.ImageSlider(
                    label="Photograph, painting",
                    interactive=False,
                    image_mode=None,
                    buttons=["fullscreen"],
                    elem_id="painting",
                )
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
                losses = gr.LinePlot(
                    x="step", y="log10 loss", color="term", height=340, show_label=False, buttons=[], elem_id="losses"
                )
        self.on(
            go.click,
            self._paint,
            [content, style, *recipe],
            [status, painting, losses, download],
            heavy=True,
            show_progress_on=status,
        )
        self.on(stop.click, self._stop, None, status, queue=False)

    def _recipe(self) -> list[Any]:
        """The recipe's components: its TOML text, then one control for each of `recipes.CONTROLS`."""
        default = recipes.preset("default", self.limits)
        preset = gr.Dropdown(
            [(f"{name}: {found.about}", name) for name, found in RECIPES.items()],
            value="default",
            label="Recipe",
            filterable=False,
        )
        controls = self._controls(default)
        with gr.Accordion("The whole recipe", open=False):
            text = gr.Textbox(
                format_recipe(default),
                label="Recipe as TOML: change it, then press Use",
                lines=14,
                max_lines=30,
                max_length=recipes.LONGEST_TEXT,
                elem_id="recipe",
            )
            with gr.Row():
                use = gr.Button("Use", size="sm")
                saved = gr.DownloadButton("Save as .toml", size="sm")
                opened = gr.UploadButton(
                    "Open .toml or painted picture", size="sm", file_types=[".toml", ".png", ".jpg", ".webp"]
                )
        everything = [text, *controls]
        self.on(preset.input, self._use_preset, preset, everything, queue=False)
        self.on(use.click, self._use_text, text, everything, queue=False)
        self.on(opened.upload, self._use_file, opened, everything, queue=False)
        self.on(saved.click, self._save, everything, saved, queue=False)
        for control in controls:
            self.on(control.change, self._edit_text, everything, text, queue=False, trigger_mode="always_last")
        return everything

    def _controls(self, default: Recipe) -> list[Any]:
        """One control for each of `recipes.CONTROLS`, in their order."""
        helps = {field.name: field.metadata["help"] for field in fields(Recipe)}
        size, steps, content, style, scale, objective, color = recipes.controls(default, self.limits)
        with gr.Row():
            sliders = [
                gr.Slider(64, self.limits.size, size, step=16, label="Size", info="long side, pixels"),
                gr.Slider(1, 300, steps, step=1, label="Steps", info="at the first, smallest size"),
            ]
        with gr.Row():
            weights = [
                gr.Number(content, label="Content weight", info="higher: closer to the photograph", minimum=0),
                gr.Number(style, label="Style weight", info="higher: closer to the style", minimum=0),
            ]
        stroke = gr.Slider(0.2, 3, scale, step=0.05, label="Stroke size", info=helps["style_scale"])
        with gr.Row():
            choices = [
                gr.Dropdown(CHOICES["objective"], value=objective, label="Objective", filterable=False),
                gr.Dropdown(CHOICES["color"], value=color, label="Colours", filterable=False),
            ]
        return [*sliders, *weights, stroke, *choices]

    def _paint(
        self,
        request: gr.Request,
        content: Mapping[str, str] | None,
        style: Mapping[str, str] | None,
        text: str,
        *values: object,
    ) -> Iterator[tuple[Any, ...]]:
        with shown_errors():
            recipe = recipes.changed(text, values, self.limits)
            photograph, manner = self.read(content, "content"), self.read(style, "style")
            folder = self.folders.results(request.session_hash)
            shutil.rmtree(folder, ignore_errors=True)
            yield "Loading the network.", gr.skip(), None, gr.update(interactive=False)
            with self.runs.begin(request.session_hash) as run:
                for found in work.paint(photograph, manner, recipe, run, folder):
                    before = images.resize(photograph.picture.rgb, *found.image.shape[2:])
                    pictures = tuple(images.to_pil(picture, found.alpha) for picture in (before, found.image))
                    file = gr.update(value=str(found.file), interactive=True) if found.file else gr.skip()
                    yield _status(found), pictures, _curves(found.losses), file

    def _stop(self, request: gr.Request) -> Any:
        # A run reports where it ended, and that report stays.
        if self.runs.stop(request.session_hash) or self.folders.results(request.session_hash).exists():
            return gr.skip()
        return "This page has no run to stop."

    def _use_preset(self, name: str) -> list[Any]:
        return self._shown(recipes.preset(name, self.limits))

    def _use_text(self, text: str) -> list[Any]:
        return self._shown(recipes.read(text, self.limits))

    def _use_file(self, payload: Mapping[str, str] | None) -> list[Any]:
        return self._shown(recipes.of_file(sent_file(payload, "recipe", self.folders.sent), self.limits))

    def _shown(self, recipe: Recipe) -> list[Any]:
        return [format_recipe(recipe), *recipes.controls(recipe, self.limits)]

    def _edit_text(self, text: str, *values: object) -> Any:
        changed = format_recipe(recipes.changed(text, values, self.limits))
        return gr.skip() if changed == text else changed

    def _save(self, request: gr.Request, text: str, *values: object) -> str:
        recipe = recipes.changed(text, values, self.limits)
        folder = self.folders.results(request.session_hash)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recipe.toml"
        files.write(file, format_recipe(recipe))
        return str(file)


def _status(found: work.Painting) -> str:
    """The progress of a run as a bar and a line."""
    at = found.progress
    height, width = found.image.shape[2:]
    place = f"step {at.step} of {at.steps}, stage {at.stage} of {at.stages}"
    state = place.capitalize() if found.file is None else f"Stopped at {place}" if found.stopped else "Done"
    note = f" · {at.note}" if at.note else ""
    percent = 100 if state == "Done" else round(100 * at.done)
    bar = f"linear-gradient(to right, var(--color-accent) {percent}%, var(--border-color-primary) {percent}%)"
    return (
        f'<div role="progressbar" aria-label="Progress" aria-valuenow="{percent}" '
        f'style="height: 8px; border-radius: 4px; background: {bar}"></div>'
        f"<strong>{state}</strong> · {width} x {height} pixels, {at.seconds:.0f} s, loss {at.losses['total']:.4g}"
        + escape(note)
    )


def _curves(losses: Mapping[str, Sequence[float]]) -> Any:
    """The loss terms as a table with a line for each term and step. Terms that are 0 have no logarithm."""
    pandas: Any = import_module("pandas")  # comes with Gradio

    points = [
        (step, log10(value), name)
        for name, values in losses.items()
        for step, value in enumerate(values, 1)
        if value > 0
    ]
    return pandas.DataFrame(points, columns=["step", "log10 loss", "term"])
