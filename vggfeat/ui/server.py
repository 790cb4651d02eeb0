"""Serve the page."""

import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from vggfeat.errors import InputError, VggfeatError
from vggfeat.ui.jobs import Jobs
from vggfeat.ui.limits import Limits

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# A browser that honours this fetches nothing from elsewhere, whatever the page says.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)

# Gradio has the style sheet hold inside its frame alone; this is about the frame.
_FRAME = """<style>
.gradio-container { width: 100% !important; max-width: 1240px !important; min-width: 0 !important; }
.gradio-container { margin: 0 auto !important; }
@media (max-width: 640px) { .gradio-container .main { padding: 8px !important; min-width: 0 !important; } }
</style>"""


class Server:
    """A page that is being served. `url` is where."""

    def __init__(self, blocks: Any, url: str, jobs: Jobs, root: Path) -> None:  # noqa: ANN401 (Gradio's Blocks)
        self._blocks = blocks
        self.url = url
        self.jobs = jobs
        self.root = root

    def wait(self) -> None:
        """Until it is interrupted."""
        while self._blocks.is_running:
            time.sleep(0.2)


def check_auth(host: str, auth: str | None) -> tuple[str, str] | None:
    """The user and the password of `USER:PASSWORD`.

    Raises `InputError` where they are malformed, and where there are none but others can connect to `host`.
    """
    if auth is None:
        if host not in _LOOPBACK:
            raise InputError(f"--host {host} lets others in: it needs --auth USER:PASSWORD")
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise InputError("--auth is USER:PASSWORD, neither of them empty")
    return user, password


@contextmanager
def serve(
    host: str = "127.0.0.1", port: int | None = None, *, auth: str | None = None, limits: Limits | None = None
) -> Generator[Server]:
    """Serve the page while the context lasts.

    `host`: the address to listen at; any but this machine's own needs `auth`. `port`: None takes the first free one
    from 7860 on. `auth`: `USER:PASSWORD`. Whatever pages send or paint lies in a temporary folder, which goes with
    the server.

    Raises `InputError`, and `VggfeatError` where Gradio is missing or the port is taken.
    """
    limits = Limits() if limits is None else limits
    login = check_auth(host, auth)
    with tempfile.TemporaryDirectory(prefix="vggfeat-ui-", ignore_cleanup_errors=True) as folder:
        gr = _gradio(Path(folder, "sent"))
        from vggfeat.ui import work
        from vggfeat.ui.page import TITLE, Folders, Page, copy_samples

        folders = Folders(Path(folder))
        folders.sent.mkdir()
        copy_samples(folders)
        jobs = Jobs()
        blocks = Page(gr, folders, limits, jobs, work.Explorer(limits)).build()
        blocks.queue(max_size=limits.waiting, default_concurrency_limit=4, api_open=False)
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                auth=login,
                auth_message=None if login is None else TITLE,
                max_file_size=limits.megabytes * 1_000_000,
                theme=_theme(gr),
                css=(resources.files("vggfeat.ui") / "page.css").read_text("utf-8"),
                head=_FRAME,
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
            yield Server(blocks, url, jobs, folders.root)
        finally:
            blocks.close(verbose=False)


def _gradio(folder: Path) -> Any:  # noqa: ANN401 (an extra, untyped)
    """Gradio, which from here on keeps to this machine and to `folder`."""
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )
    try:
        return import_module("gradio")
    except ImportError as error:
        raise VggfeatError('the page needs Gradio: pip install "vggfeat[ui]"') from error


def _theme(gr: Any) -> Any:  # noqa: ANN401 (Gradio's)
    """Plain, with the fonts of the reader's machine."""
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
    if host in _LOOPBACK:  # a name that a stranger's site resolves to this machine is not ours
        layers.append(middleware(trusted, allowed_hosts=[*_LOOPBACK, "[::1]"]))
    return layers


class _Headers:
    """Adds to every answer what the browser may fetch, and that nobody is told where a reader came from."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 (ASGI)
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 (ASGI)
        async def sent(message: Any) -> None:  # noqa: ANN401 (ASGI)
            if message["type"] == "http.response.start":
                headers = [
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._app(scope, receive, sent)
