"""The page: a header and the tabs found in `vggfeat/ui/tabs`."""

import pkgutil
import shutil
from importlib import import_module
from typing import Any

import gradio as gr

from vggfeat.ui import tabs
from vggfeat.ui.folders import Folders
from vggfeat.ui.limits import Limits
from vggfeat.ui.page_runs import PageRuns
from vggfeat.ui.tab import Tab

TITLE = "vggfeat"


def build(folders: Folders, limits: Limits, runs: PageRuns) -> Any:
    """The page, ready to be launched."""
    for module in pkgutil.iter_modules(tabs.__path__):
        import_module(f"{tabs.__name__}.{module.name}")
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 7200)) as blocks:
        gr.Markdown(
            f"# {TITLE}\nVGG features and style transfer. Your pictures stay on the machine that serves this page."
        )
        with gr.Tabs(elem_id="tabs"):
            for kind in sorted(Tab.__subclasses__(), key=lambda kind: kind.position):
                tab = kind(folders, limits, runs)
                with gr.Tab(tab.title, id=tab.title.lower()):
                    tab.build()

        def close(request: gr.Request) -> None:
            """End the runs of a page that was closed, and remove its files."""
            runs.abandon(request.session_hash)
            shutil.rmtree(folders.results(request.session_hash), ignore_errors=True)

        blocks.unload(close)
    return blocks
