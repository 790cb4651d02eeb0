"""`vggfeat ui`: serve the web page."""

from contextlib import suppress

import click

from ._signals import terminating


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; other addresses need --auth.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port.  [default: the first free one from 7860]")
@click.option("--auth", metavar="USER:PASSWORD", envvar="VGGFEAT_UI_AUTH", show_envvar=True, help="Require this login.")
@click.option("--max-size", type=click.IntRange(64), default=2048, help="Largest long side of a result, in pixels.")
@click.option("--max-upload", type=click.IntRange(1), default=32, metavar="MB", help="Largest upload.")
def command(host: str, *, port: int | None, auth: str | None, max_size: int, max_upload: int) -> None:
    """Serve a web page to stylize, explore and compare pictures. By default only this machine can open it.

    Needs pip install "vggfeat[ui]". The page loads nothing from other servers. Ctrl-C stops the server and deletes
    uploaded files.
    """
    from vggfeat.ui.limits import Limits
    from vggfeat.ui.server import serve

    with terminating(), serve(host, port, auth=auth, limits=Limits(size=max_size, megabytes=max_upload)) as server:
        click.echo(f"{server.url}  (Ctrl-C stops it)")
        with suppress(KeyboardInterrupt):
            server.wait()
