"""Serves the page over HTTP."""

import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from vggfeat.errors import InputError, VggfeatError, imported
from vggfeat.ui.folders import Folders
from vggfeat.ui.limits import Limits
from vggfeat.ui.page_runs import PageRuns

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Browsers that honour this policy load nothing from other hosts.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


# Gradio has no parameters for these: fill each row of a gallery with as many pictures as fit, narrow margins on phones.
_STYLE = """<style>
.pictures .grid-container { grid: auto-flow min-content / repeat(auto-fill, minmax(96px, 1fr)) !important; }
@media (max-width: 640px) { .gradio-container .main.app { padding: 8px !important; } }
</style>"""


class Server:
    """A running server: its `url`, the `runs` in progress, and `root`, the folder of its files."""

    def __init__(self, blocks: Any, url: str, runs: PageRuns, root: Path) -> None:
        self._blocks = blocks
        self.url = url
        self.runs = runs
        self.root = root

    def wait(self) -> None:
        """Block until the server stops or the process is interrupted."""
        while self._blocks.is_running:
            time.sleep(0.2)


def check_auth(host: str, auth: str | None) -> tuple[str, str] | None:
    """Split `USER:PASSWORD` into the user and the password.

    Raises `InputError` if it is malformed, or missing while other machines can connect to `host`.
    """
    if auth is None:
        if host not in _LOOPBACK:
            raise InputError(f"--host {host} lets other machines connect: it needs --auth USER:PASSWORD")
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise InputError("--auth must be USER:PASSWORD, neither of them empty")
    return user, password


@contextmanager
def serve(
    host: str = "127.0.0.1", port: int | None = None, *, auth: str | None = None, limits: Limits | None = None
) -> Generator[Server]:
    """Serve the page while the context lasts.

    `host`: the address to listen on; any other than this machine's own needs `auth`. `port`: None takes the first free
    port from 7860 on. `auth`: `USER:PASSWORD`. Uploads and paintings are in a temporary folder, which is deleted when
    the server stops.

    Raises `InputError` for invalid arguments, and `VggfeatError` if Gradio is missing or the port is taken.
    """
    limits = Limits() if limits is None else limits
    login = check_auth(host, auth)
    with tempfile.TemporaryDirectory(prefix="vggfeat-ui-", ignore_cleanup_errors=True) as folder:
        folders, runs = Folders(Path(folder)), PageRuns()
        gr = _gradio(folders.sent)
        from vggfeat.ui import page

        folders.create()
        blocks = page.build(folders, limits, runs)
        blocks.queue(max_size=limits.waiting, default_concurrency_limit=4, api_open=False)
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                auth=login,
                auth_message=None if login is None else page.TITLE,
                max_file_size=limits.megabytes * 1_000_000,
                theme=_theme(gr),
                head=_STYLE,
                app_kwargs={"middleware": _middleware(host), "docs_url": None, "redoc_url": None, "openapi_url": None},
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                show_error=False,
                strict_cors=True,
            )
        except OSError as error:
            raise VggfeatError(f"cannot serve at {host}: {' '.join(str(error).split())}") from error
        try:
            yield Server(blocks, url, runs, folders.root)
        finally:
            blocks.close(verbose=False)


def _gradio(folder: Path) -> Any:
    """Import Gradio, set up to keep its files in `folder` and to contact no other machine."""
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )
    return imported("gradio", "the page needs Gradio", "ui")


def _theme(gr: Any) -> Any:
    """Gradio's default theme in our colours, with the fonts of the user's machine."""
    return gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="lg",
    )


def _middleware(host: str) -> list[Any]:
    middleware: Any = import_module("starlette.middleware").Middleware
    trusted: Any = import_module("starlette.middleware.trustedhost").TrustedHostMiddleware
    layers = [middleware(_Headers)]
    if host in _LOOPBACK:  # prevents DNS rebinding
        layers.append(middleware(trusted, allowed_hosts=[*_LOOPBACK, "[::1]"]))
    return layers


class _Headers:
    """Adds the content security policy and the referrer policy to every response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._app(scope, receive, sent)
