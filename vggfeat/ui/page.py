"""The page: four tabs, laid out with Gradio."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import wraps
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from vggfeat import files
from vggfeat.errors import VggfeatError
from vggfeat.networks import arch
from vggfeat.pictures import images
from vggfeat.transfer.recipe import CHOICES, RECIPES, Recipe, format_recipe
from vggfeat.ui import fragments, recipes, work
from vggfeat.ui.jobs import Jobs
from vggfeat.ui.limits import Limits, read_upload, sent_file

TITLE = "vggfeat"

_PHOTOGRAPHS = {
    "china": "a pagoda above a lake",
    "chelsea": "Chelsea the cat",
    "coffee": "a cup of espresso",
    "flower": "a dahlia",
    "rocket": "a rocket at night",
    "astronaut": "portrait of an astronaut",
}
_STYLES = {
    "swirls": "swirls: impasto strokes, deep blue and gold",
    "stained_glass": "stained glass: leaded panes",
    "mosaic": "mosaic: small stones along outlines",
    "autumn_oil": "autumn oil: palette knife, orange against teal",
    "woodcut": "woodcut: gouge cuts in dark ink",
    "ink_wave": "ink wave: flat bands of indigo and cream",
    "watercolour": "watercolour: washes with dried edges",
}

# A press on a button that carries `data-pick` becomes an event that carries it too.
_PICK = (
    "element.addEventListener('click', e => { const b = e.target.closest('[data-pick]');"
    " if (!b) return; element.querySelectorAll('[aria-pressed]').forEach(o => o.setAttribute('aria-pressed', o === b));"
    " trigger('select', {pick: b.dataset.pick}); });"
)
_KINDS = ("relu", "pool", "conv")


@dataclass(frozen=True)
class Folders:
    """Where a page's files live while it is served: `sent` by pages, `samples` to try, `results` of each session."""

    root: Path

    @property
    def sent(self) -> Path:
        """Gradio's own folder, of uploads and downloads."""
        return self.root / "sent"

    @property
    def samples(self) -> Path:
        """The pictures that come with vggfeat."""
        return self.root / "samples"

    def results(self, session: str) -> Path:
        """Of one page."""
        return self.root / "results" / "".join(letter for letter in session if letter.isalnum())


@dataclass
class Page:
    """What the functions behind the page share. `gr` is Gradio."""

    gr: Any
    folders: Folders
    limits: Limits
    jobs: Jobs
    explorer: work.Explorer

    def build(self) -> Any:  # noqa: ANN401 (Gradio's Blocks)
        """The page."""
        gr = self.gr
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 7200)) as blocks:
            gr.HTML(
                f'<header class="vf-head"><h1>{TITLE}</h1><p>What VGG networks see, and how a style grows. '
                "Nothing leaves the machine that serves this page.</p></header>"
            )
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Stylize", id="stylize"):
                    self._stylize()
                with gr.Tab("Explore", id="explore"):
                    self._explore()
                with gr.Tab("Compare", id="compare"):
                    self._compare()
                with gr.Tab("Layers", id="layers"):
                    self._layers()
            blocks.unload(self._special(self._leave, request=gr.Request))
        return blocks

    # Stylize

    def _stylize(self) -> None:
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                with gr.Row():
                    content, style = self._upload("Content"), self._upload("Style")
                styles = self._chooser("styles", _STYLES, "Styles")
                with gr.Accordion("Photographs to try", open=False):
                    photographs = self._chooser("photographs", _PHOTOGRAPHS, "Photographs")
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
                        max_length=20_000,
                        elem_classes="vf-recipe",
                        elem_id="recipe",
                    )
                    with gr.Row():
                        use = gr.Button("Use", size="sm")
                        saved = gr.DownloadButton("Save as .toml", size="sm")
                        opened = gr.UploadButton(
                            "Open .toml or painted picture", size="sm", file_types=[".toml", ".png", ".jpg", ".webp"]
                        )
            with gr.Column(scale=6, min_width=320):
                with gr.Row():
                    go = gr.Button("Paint", variant="primary", elem_id="paint")
                    stop = gr.Button("Stop and keep", elem_id="stop")
                status = gr.HTML(fragments.note("Ready."), elem_id="status", min_height=62)
                picture = gr.HTML(
                    fragments.waiting("No painting yet", "Choose a photograph and a style, then press Paint."),
                    elem_id="painting",
                )
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
                chart = gr.HTML(elem_id="losses")
        for chooser, target in ((styles, style), (photographs, content)):
            self._on(chooser.select, self._sample, None, target, event=gr.EventData, queue=False)
        everything = [*controls, text]
        self._on(preset.input, self._preset, preset, everything, queue=False)
        for control in controls:
            self._on(control.change, self._changed, [text, *controls], text, queue=False, trigger_mode="always_last")
        self._on(use.click, self._use, text, everything, queue=False)
        self._on(opened.upload, self._open, opened, everything, queue=False)
        self._on(saved.click, self._save, [text, *controls], saved, request=gr.Request, queue=False)
        self._on(
            go.click,
            self._paint,
            [content, style, text, *controls],
            [status, picture, chart, download],
            request=gr.Request,
            heavy=True,
            show_progress_on=status,
        )
        self._on(stop.click, self._stop, None, status, request=gr.Request, queue=False)

    def _controls(self, default: Recipe) -> list[Any]:
        """A control for each of `recipes.CONTROLS`, in their order."""
        gr, limits = self.gr, self.limits
        helps = {field.name: field.metadata["help"] for field in fields(Recipe)}
        size, steps, content, style, scale, objective, color = recipes.controls(default, limits)
        with gr.Row():
            one = gr.Slider(64, limits.size, size, step=16, label="Size", info="pixels of the long side")
            two = gr.Slider(1, 300, steps, step=1, label="Steps", info="of the first, coarsest size")
        with gr.Row():
            three = gr.Number(content, label="Content weight", info="more keeps the photograph", minimum=0)
            four = gr.Number(style, label="Style weight", info="more paints", minimum=0)
        with gr.Row():
            five = gr.Slider(0.2, 3, scale, step=0.05, label="Stroke size", info=helps["style_scale"])
        with gr.Row():
            six = gr.Dropdown(CHOICES["objective"], value=objective, label="Objective", filterable=False)
            seven = gr.Dropdown(CHOICES["color"], value=color, label="Colours", filterable=False)
        return [one, two, three, four, five, six, seven]

    def _paint(
        self,
        content: str | None,
        style: str | None,
        text: str,
        *values: Any,  # noqa: ANN401 (Gradio's)
        request: Any,  # noqa: ANN401 (Gradio's)
    ) -> Iterator[tuple[Any, ...]]:
        gr = self.gr
        recipe = recipes.changed(text, values, self.limits)
        photograph = read_upload(content, "content", self.folders.sent, self.limits)
        manner = read_upload(style, "style", self.folders.sent, self.limits)
        folder = self.folders.results(request.session_hash)
        shutil.rmtree(folder, ignore_errors=True)
        closed = gr.update(interactive=False)
        yield fragments.note("Loading the network."), gr.skip(), "", closed
        with self.jobs.begin(request.session_hash) as job:
            for found in work.paint(photograph, manner, recipe, job, folder):
                chart = gr.skip()
                if found.chart is not None:
                    chart = fragments.figure(fragments.data_uri(found.chart), "the terms of the loss, step by step")
                after = fragments.data_uri(found.image, found.alpha)
                if found.file is None:
                    shown, file = fragments.figure(after, "the painting so far"), closed
                else:
                    height, width = found.image.shape[2:]
                    before = fragments.data_uri(images.resize(photograph.picture.rgb, height, width), found.alpha)
                    shown = fragments.wipe(before, after, ("photograph", "painting"))
                    file = gr.update(value=str(found.file), interactive=True)
                if found.alpha is not None:
                    shown = f'<div class="vf-checker">{shown}</div>'
                yield fragments.status(found), shown, chart, file

    def _stop(self, request: Any) -> Any:  # noqa: ANN401 (Gradio's)
        # A run says itself where it ended, and what it said stays.
        if self.jobs.stop(request.session_hash) or self.folders.results(request.session_hash).exists():
            return self.gr.skip()
        return fragments.note("Nothing runs for this page yet.")

    def _leave(self, request: Any) -> None:  # noqa: ANN401 (Gradio's)
        self.jobs.leave(request.session_hash)
        shutil.rmtree(self.folders.results(request.session_hash), ignore_errors=True)

    def _sample(self, event: Any) -> str:  # noqa: ANN401 (Gradio's)
        known = {**_PHOTOGRAPHS, **_STYLES}
        name = next(name for name in known if name == event.pick)
        return str(self.folders.samples / f"{name}.jpg")

    def _preset(self, name: str) -> list[Any]:
        return self._shown(recipes.preset(name, self.limits))

    def _use(self, text: str) -> list[Any]:
        return self._shown(recipes.read(text, self.limits))

    def _open(self, path: str) -> list[Any]:
        return self._shown(recipes.of_file(sent_file(path, "recipe", self.folders.sent), self.limits))

    def _shown(self, recipe: Recipe) -> list[Any]:
        return [*recipes.controls(recipe, self.limits), format_recipe(recipe)]

    def _changed(self, text: str, *values: Any) -> Any:  # noqa: ANN401 (Gradio's)
        changed = format_recipe(recipes.changed(text, values, self.limits))
        return self.gr.skip() if changed == text else changed

    def _save(self, text: str, *values: Any, request: Any) -> str:  # noqa: ANN401 (Gradio's)
        recipe = recipes.changed(text, values, self.limits)
        folder = self.folders.results(request.session_hash)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recipe.toml"
        files.write(file, format_recipe(recipe))
        return str(file)

    # Explore

    def _explore(self) -> None:
        gr = self.gr
        known = recipes.networks()
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                picture = self._upload("Picture")
                with gr.Accordion("Photographs to try", open=False):
                    photographs = self._chooser("explore-photographs", _PHOTOGRAPHS, "Photographs to try")
                network = gr.Dropdown(list(known), value=known[0], label="Network", filterable=False)
                kinds = gr.CheckboxGroup(list(_KINDS), value=list(_KINDS[:2]), label="Kinds of layers")
                layer = gr.Radio(_names(known[0], _KINDS[:2]), value="relu3_3", label="Layer", elem_id="layer")
            with gr.Column(scale=7, min_width=320):
                large = gr.HTML(
                    fragments.waiting("No picture yet", "Drop a picture; then choose a layer and a channel of it."),
                    elem_id="channel",
                )
                grid = gr.HTML(elem_id="channels", js_on_load=_PICK)
        self._on(photographs.select, self._sample, None, picture, event=gr.EventData, queue=False)
        for part in (network, kinds):
            self._on(part.change, self._kinds, [network, kinds, layer], layer, queue=False)
        for part in (picture, layer, network):
            self._on(
                part.change,
                self._grid,
                [picture, network, layer],
                [grid, large],
                heavy=True,
                trigger_mode="always_last",
            )
        self._on(grid.select, self._channel, [picture, network, layer], large, event=gr.EventData, heavy=True)

    def _kinds(self, network: str, kinds: list[str], layer: str | None) -> Any:  # noqa: ANN401 (Gradio's)
        names = _names(network, kinds or _KINDS[:1])
        return self.gr.update(choices=names, value=layer if layer in names else names[len(names) // 2])

    def _grid(self, picture: str | None, network: str, layer: str | None) -> tuple[str, str]:
        if not picture or not layer or layer not in _names(network, _KINDS):
            return "", fragments.waiting("No picture yet", "Drop a picture; then choose a layer and a channel of it.")
        upload = read_upload(picture, "picture", self.folders.sent, self.limits)
        grid = self.explorer.grid(upload, network, layer)
        busiest = max(range(len(grid.peaks)), key=lambda channel: abs(grid.peaks[channel]))
        return fragments.tiles(grid), self._large(upload, network, layer, busiest)

    def _channel(self, picture: str | None, network: str, layer: str, event: Any) -> str:  # noqa: ANN401 (Gradio's)
        upload = read_upload(picture, "picture", self.folders.sent, self.limits)
        return self._large(upload, network, layer, int(event.pick))

    def _large(self, upload: Any, network: str, layer: str, channel: int) -> str:  # noqa: ANN401 (limits.Upload)
        below, above = self.explorer.channel(upload, network, layer, channel)
        facts = f"of {layer}, {network}, over {upload.name}"
        return fragments.overlay(fragments.data_uri(below), fragments.data_uri(above), f"Channel {channel}", facts)

    # Compare

    def _compare(self) -> None:
        gr = self.gr
        with gr.Row():
            first, second = self._upload("First picture"), self._upload("Second picture")
        go = gr.Button("Compare", variant="primary", elem_id="compare")
        table = gr.HTML(elem_id="metrics", min_height=40, padding=True, apply_default_css=False)
        heat = gr.HTML(elem_id="heat")
        self._on(go.click, self._compared, [first, second], [table, heat], heavy=True, show_progress_on=table)

    def _compared(self, first: str | None, second: str | None) -> tuple[str, str]:
        a, b = (
            read_upload(path, role, self.folders.sent, self.limits)
            for path, role in ((first, "first picture"), (second, "second picture"))
        )
        found = work.compared(a, b, self.limits)
        return fragments.metrics(found), fragments.heat(found)

    # Layers

    def _layers(self) -> None:
        gr = self.gr
        names = [name for name in arch.NETWORKS if arch.is_vgg(name)]
        with gr.Row():
            network = gr.Dropdown(names, value="vgg16", label="Network", filterable=False)
            size = gr.Slider(32, 1024, 224, step=1, label="Side of the picture", info="pixels")
        table = gr.HTML(fragments.layers("vgg16", 224), elem_id="layer-table", apply_default_css=False)
        for part in (network, size):
            self._on(part.change, fragments_layers, [network, size], table, queue=False, trigger_mode="always_last")

    # What all tabs share

    def _upload(self, label: str) -> Any:  # noqa: ANN401 (Gradio's)
        image = self.gr.Image(
            label=label,
            type="filepath",
            sources=["upload", "clipboard"],
            image_mode=None,
            height=250,
            buttons=[],
            alt_text=label,
            elem_id=label.lower().replace(" ", "-"),
        )
        # The file as it was sent: Gradio would open it, and fetch it where a page names an address elsewhere.
        image.preprocess = _path_of
        image.async_move_resource_to_block_cache = _here_alone(image.async_move_resource_to_block_cache)
        return image

    def _chooser(self, name: str, pictures: dict[str, str], label: str) -> Any:  # noqa: ANN401 (Gradio's)
        samples = [self.folders.samples / f"{stem}.jpg" for stem in pictures]
        pressed = fragments.choices(fragments.thumbnails(samples, pictures), label)
        return self.gr.HTML(pressed, elem_id=name, js_on_load=_PICK)

    def _special(self, function: Callable[..., Any], **kinds: Any) -> Callable[..., Any]:  # noqa: ANN401 (Gradio's)
        """`function` with the arguments that Gradio fills in, which it knows by their annotations, and its errors."""
        gr = self.gr

        def refusal(error: VggfeatError) -> Exception:
            return gr.Error(escape(str(error)), title="Not possible", print_exception=False, duration=12)

        return _special(function, kinds, refusal)

    def _on(
        self,
        listener: Callable[..., Any],
        function: Callable[..., Any],
        inputs: Any,  # noqa: ANN401 (Gradio's)
        outputs: Any,  # noqa: ANN401 (Gradio's)
        *,
        heavy: bool = False,
        request: Any = None,  # noqa: ANN401 (Gradio's)
        event: Any = None,  # noqa: ANN401 (Gradio's)
        **options: Any,  # noqa: ANN401 (Gradio's)
    ) -> None:
        """Have `function` called on an event; what is heavy one at a time, whoever asks."""
        kinds = {name: kind for name, kind in (("request", request), ("event", event)) if kind}
        if heavy:
            options |= {"concurrency_id": "work", "concurrency_limit": 1}
        if not options.get("queue", True):
            options["show_progress"] = "hidden"
        listener(self._special(function, **kinds), inputs, outputs, api_visibility="private", **options)


def fragments_layers(network: str, size: float) -> str:
    """The layer table."""
    return fragments.layers(network, int(size))


def copy_samples(folders: Folders) -> None:
    """Put the pictures that come with vggfeat where pages may ask for them."""
    folders.samples.mkdir(parents=True)
    source = Path(str(resources.files("vggfeat_assets"))) / "images"
    for name in (*_PHOTOGRAPHS, *_STYLES):
        shutil.copyfile(source / f"{name}.jpg", folders.samples / f"{name}.jpg")


def _names(network: str, kinds: Any) -> list[str]:  # noqa: ANN401 (a sequence of words)
    return [layer.name for layer in arch.layers(network) if layer.kind in kinds]


def _path_of(payload: Any) -> str | None:  # noqa: ANN401 (Gradio's)
    return None if payload is None else payload.path


def _here_alone(move: Callable[..., Any]) -> Callable[..., Any]:
    async def moved(path: Any) -> Any:  # noqa: ANN401 (Gradio's)
        if "://" in str(path):
            raise ValueError("pictures are sent, not fetched")
        return await move(path)

    return moved


def _special(
    function: Callable[..., Any], kinds: dict[str, Any], refusal: Callable[[VggfeatError], Exception]
) -> Callable[..., Any]:
    import inspect

    signature = inspect.signature(function)
    names = list(kinds)

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def wrapped(*values: Any) -> Any:  # noqa: ANN401 (Gradio's)
            special, rest = values[: len(names)], values[len(names) :]
            try:
                yield from function(*rest, **dict(zip(names, special, strict=True)))
            except VggfeatError as error:
                raise refusal(error) from error

    else:

        @wraps(function)
        def wrapped(*values: Any) -> Any:  # noqa: ANN401 (Gradio's)
            special, rest = values[: len(names)], values[len(names) :]
            try:
                return function(*rest, **dict(zip(names, special, strict=True)))
            except VggfeatError as error:
                raise refusal(error) from error

    ahead = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kinds[name]) for name in names]
    others = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name not in kinds
    ]
    wrapped.__signature__ = inspect.Signature([*ahead, *others])  # pyright: ignore[reportAttributeAccessIssue] (inspect's)
    wrapped.__annotations__ = kinds
    return wrapped
