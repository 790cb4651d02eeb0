"""The base class of the tabs of the page."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

import gradio as gr

from vggfeat.errors import VggfeatError
from vggfeat.ui.folders import Folders
from vggfeat.ui.limits import Limits, Upload, read_upload
from vggfeat.ui.page_runs import PageRuns


@dataclass(frozen=True)
class Tab(ABC):
    """One tab of the page. `build` creates its components inside the current Gradio context.

    A subclass in a file of `vggfeat/ui/tabs` becomes a tab of the page. `position` orders the tabs.
    """

    title: ClassVar[str]
    position: ClassVar[int]

    folders: Folders
    limits: Limits
    runs: PageRuns

    @abstractmethod
    def build(self) -> None:
        """Create the tab's components and their events."""

    def upload(self, label: str) -> gr.Image:
        """Create an input for a picture. Its id in the page is the label in kebab case."""
        image = gr.Image(
            label=label,
            type="filepath",
            sources=["upload", "clipboard"],
            image_mode=None,
            height=250,
            buttons=[],
            alt_text=label,
            elem_id=label.lower().replace(" ", "-"),
        )
        # Gradio fetches a picture that a request gives as a URL, and has no parameter to prevent it.
        image.async_move_resource_to_block_cache = _refuse_urls(image.async_move_resource_to_block_cache)
        return image

    def samples(self, label: str, names: Sequence[str], target: gr.Image, *, is_open: bool = False) -> None:
        """Create a gallery of sample pictures; a click puts one into `target`."""
        with gr.Accordion(label, open=is_open):
            gallery = gr.Gallery(
                [(str(self.folders.samples / f"{name}.jpg"), name.replace("_", " ")) for name in names],
                show_label=False,
                height="fit-content",
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                buttons=[],
                container=False,
                elem_id=f"{target.elem_id}-samples",
                elem_classes="pictures",
            )

        def choose(event: gr.SelectData) -> str:
            return str(self.folders.samples / f"{names[event.index]}.jpg")

        self.on(gallery.select, choose, None, target, queue=False)

    def read(self, payload: Mapping[str, str] | None, role: str) -> Upload:
        """Read an uploaded picture. `role` names it in errors."""
        return read_upload(payload, role, self.folders.sent, self.limits)

    def on(
        self,
        listener: Callable[..., Any],
        function: Callable[..., Any],
        inputs: Any,
        outputs: Any,
        *,
        heavy: bool = False,
        **options: Any,
    ) -> None:
        """Call `function` on an event. Heavy functions of all pages run one at a time.

        Functions receive what the browser sent: an uploaded file is a mapping with its "path". A generator function
        wraps its own body in `shown_errors`.
        """
        if not inspect.isgeneratorfunction(function):
            function = shown_errors()(function)
        if heavy:
            options |= {"concurrency_id": "work", "concurrency_limit": 1}
        if not options.get("queue", True):
            options["show_progress"] = "hidden"
        listener(function, inputs, outputs, api_visibility="private", preprocess=False, **options)


@contextmanager
def shown_errors() -> Generator[None]:
    """Show a `VggfeatError` to the user."""
    try:
        yield
    except VggfeatError as error:
        raise gr.Error(escape(str(error)), title="Not possible", print_exception=False, duration=12) from error


def _refuse_urls(move: Callable[..., Any]) -> Callable[..., Any]:
    async def moved(path: Any) -> Any:
        if "://" in str(path):
            raise ValueError("pictures are uploaded, not fetched from a URL")
        return await move(path)

    return moved
