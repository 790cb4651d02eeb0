"""The command `vggfeat`. Each module of this package without a leading underscore is a subcommand.

The module `dump_stats` defines `command` and becomes `vggfeat dump-stats`. `vggfeat --help` shows the first line of its
docstring, which is read without importing the module. Slow imports are inside functions, so that help and error
messages appear at once.
"""

import importlib
import io
import pkgutil
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import click

    from vggfeat.errors import VggfeatError, near
except KeyboardInterrupt:  # while the command starts
    sys.exit(130)


def _debug(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.find_root().meta["vggfeat.debug"] = True


def _purpose(name: str) -> str:
    """The text after the colon in the first line of a command's module."""
    with (Path(__path__[0]) / f"{name.replace('-', '_')}.py").open(encoding="utf-8") as file:
        text = file.readline().strip().strip('"').partition(": ")[2]
    return text[0].upper() + text[1:]


def _warning(message: Warning | str, *_place: object, **_line: object) -> str:
    """A warning in one line, without the place in the code that caused it."""
    return f"vggfeat: warning: {' '.join(str(message).split())}\n"


class _Commands(click.Group):
    """Finds the subcommands, and prints every error as one line on standard error."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        names = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        known = self.list_commands(ctx)
        if cmd_name not in known:
            raise click.UsageError(f"unknown command '{cmd_name}': {near(cmd_name, known)}")
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        if not any(option.name == "debug" for option in command.params):
            command.params.append(
                click.Option(["--debug"], is_flag=True, expose_value=False, callback=_debug, help="Show tracebacks.")
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _purpose(name)) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VggfeatError as error:
            if ctx.meta.get("vggfeat.debug"):
                raise
            raise click.UsageError(str(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("vggfeat.debug"):
                raise
            if isinstance(error, OSError):
                raise click.UsageError(str(error)) from error
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise click.ClickException(f"internal error, {reason} (--debug shows where)") from error

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        warnings.formatwarning = _warning
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end the run
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.Abort:
            sys.exit(130)
        except click.ClickException as error:
            from ._text import escaped

            with suppress(OSError):
                click.echo(f"vggfeat: {escaped(' '.join(error.format_message().split()))}", err=True)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


@click.group("vggfeat", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="vggfeat", prog_name="vggfeat")
def main() -> None:
    """VGG features by name: style transfer, perceptual metrics, activation dumps, training."""
