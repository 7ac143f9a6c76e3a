"""The command line: parse, one call, print."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated

import typer

from brainstage import __version__
from brainstage.cli import bids, cohorts, data, models, publishing, scans, serving, studies, training, using
from brainstage.cli.shared import EXIT_CODES, USAGE_ERROR, ExitCode, warn
from brainstage.core.errors import BrainstageError, ConfigError, OtherProcessError
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.core.sigterm import Terminated
from brainstage.training.processes import is_first, process_count, refuse

app = typer.Typer(
    help=f"Stage dementia from brain MRI slices. {RESEARCH_NOTICE}",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (training, studies, using, serving, publishing, scans, cohorts, bids, data, models):
    app.add_typer(commands.app)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if process_count() > 1 and context.invoked_subcommand != "train":
        name = context.invoked_subcommand
        refuse(ConfigError(f"several processes, as torchrun starts them, are for train; start {name} without it"))


def main() -> None:
    """Run the command line; an error that the user can mend is one sentence and exit code 1."""
    command: Callable[..., int | None] = typer.main.get_command(app)
    gc.set_threshold(100_000)  # torch and transformers make a million objects that stay: collect rarely
    if not sys.warnoptions:  # Python's -W and PYTHONWARNINGS
        warnings.simplefilter("ignore")  # Pillow's and others', in the middle of the output
    for stream in (sys.stdout, sys.stderr):  # a pipe in an old encoding gets ? for what it cannot say
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if process_count() > 1:  # what torch warns of in each of several processes, read when it is imported
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        code = command(standalone_mode=False, prog_name="brainstage")
    except OtherProcessError:
        code = ExitCode.DONE  # failing, the launcher would end the first process before it says why
    except BrainstageError as error:
        warn(f"Error: {error}")
        code = ExitCode.FAILED
    except USAGE_ERROR as error:
        code = ExitCode.DONE
        if is_first():  # each process has read the same command
            error.show()
            code = error.exit_code
    except Terminated as ending:
        code = ExitCode.TERMINATED
        if is_first():
            saved = str(ending) or "finished work is kept"
            warn(f"Stopped by SIGTERM; {saved}. The same command with --resume --name NAME goes on with it.")
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.FAILED
    except OSError as error:
        warn(f"Error: {error.filename or 'a file'}: {error.strerror or error}")
        code = ExitCode.FAILED
    if code == ExitCode.INTERRUPTED:  # also from typer, whose newer versions turn Ctrl-C into this code
        warn("Stopped. Finished work is kept; where a command has --resume, --resume --name NAME goes on with it.")
        exec("")  # noqa: S102 - else "python -m" ends by the signal where Ctrl-C met an exec, as dataclasses use it
    sys.exit(code)
