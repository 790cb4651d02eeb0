"""`vggfeat ui`: the web page."""

import signal
from contextlib import suppress
from typing import NoReturn

import click


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; any other one needs --auth."
)
@click.option("--port", type=click.IntRange(1, 65535), help="[default: the first free one from 7860 on]")
@click.option(
    "--auth",
    metavar="USER:PASSWORD",
    envvar="VGGFEAT_UI_AUTH",
    show_envvar=True,
    help="Ask for this before anything is shown.",
)
@click.option(
    "--max-size",
    type=click.IntRange(64),
    default=2048,
    show_default=True,
    help="Largest long side of a painted picture, in pixels.",
)
@click.option(
    "--max-upload", type=click.IntRange(1), default=32, show_default=True, metavar="MB", help="Largest file to take."
)
def command(host: str, *, port: int | None, auth: str | None, max_size: int, max_upload: int) -> None:
    """Serve a page to stylize, explore and compare pictures, to this machine alone.

    Needs pip install "vggfeat[ui]". Nothing is fetched from elsewhere. Ctrl-C ends it, and removes what pages sent.
    """
    from vggfeat.ui.limits import Limits
    from vggfeat.ui.server import serve

    before = signal.signal(signal.SIGTERM, _end)
    try:
        with serve(host, port, auth=auth, limits=Limits(size=max_size, megabytes=max_upload)) as server:
            click.echo(f"{server.url}  (Ctrl-C ends it)")
            with suppress(KeyboardInterrupt):
                server.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(_signal: int, _frame: object) -> NoReturn:
    """A kill ends it as Ctrl-C does: what pages sent is removed."""
    raise KeyboardInterrupt
