"""The command line: one thin file a command."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

# 1 is a command's own verdict (`show.py`): a pipeline must not take a crash for one.
EXIT_USER, EXIT_BUG, EXIT_INTERRUPT = 2, 70, 130
OUT_OF_MEMORY = "out of memory. Lower --batch-tokens or --seqlen; when healing --batch or --window"

app = App(
    name="trueprune",
    help="Prune the weights, not the truth: prune causal language models and measure what it does to lie detection.",
    help_format="markdown",
    version_flags=["--version"],
    # We say what an interrupt left behind; cyclopts would end without a word.
    suppress_keyboard_interrupt=False,
)
# Named by path, so that `--help` and `--version` do not wait for torch.
app.command("trueprune.cli.prune:command", name="prune", help="Prune a model and save it.")
app.command("trueprune.cli.drop:command", name="drop", help="Take layers away: blocks, attention or MLPs.")
app.command("trueprune.cli.scan:command", name="scan", help="Profile a model block by block.")
app.command("trueprune.cli.audit:command", name="audit", help="Measure what pruning changed, item by item.")
app.command("trueprune.cli.report:command", name="report", help="Join audits made apart, and hold a gate against them.")
app.command("trueprune.cli.repair:command", name="repair", help="Heal a model around its zeros, or recalibrate it.")
study = App(name="study", help="Whole studies as one command, resumable.")
study.command("trueprune.cli.study:command", name="attention", help="Drop ever more attention and see what breaks.")
app.command(study)
app.command("trueprune.cli.sweep:command", name="sweep", help="Prune and audit a grid of models, resumable.")
app.command("trueprune.cli.estimate:command", name="estimate", help="Work, time and memory before you spend them.")
app.command("trueprune.cli.export:command", name="export", help="Write a model for an inference engine.")
app.command("trueprune.cli.demo:command", name="demo", help="Prune a small real model by five methods.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0, 1 (a gate failed, or a cell of a sweep), 2 (an error that the user can mend), 130 (Ctrl-C) or 70 (a
    bug).
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors are one line, unless `TRUEPRUNE_DEBUG` asks for a traceback."""
    from trueprune._support.errors import TruepruneError
    from trueprune._support.progress import show_progress
    from trueprune.cli.show import current_command, plain_warnings

    current_command.set(shlex.join(["trueprune", *arguments]))
    try:
        with show_progress(), plain_warnings():
            code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except KeyboardInterrupt:
        return _fail("interrupted; no model or report was written", EXIT_INTERRUPT)
    except CycloptsError as error:
        command = f" {arguments[0]}" if arguments and not arguments[0].startswith("-") else ""
        return _fail(f"{_one_line(error).rstrip('.?')}. See trueprune{command} --help", EXIT_USER)
    except TruepruneError as error:
        if os.environ.get("TRUEPRUNE_DEBUG"):
            raise
        return _fail(_one_line(error), EXIT_USER)
    except MemoryError:
        return _fail(OUT_OF_MEMORY, EXIT_USER)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            return _fail(f"{OUT_OF_MEMORY}; or use --dtype bfloat16", EXIT_USER)
        if os.environ.get("TRUEPRUNE_DEBUG"):
            raise
        kind = type(error).__name__
        return _fail(
            f"unexpected {kind}: {_one_line(error)}. TRUEPRUNE_DEBUG=1 shows where; please report it", EXIT_BUG
        )
    return code if isinstance(code, int) else 0


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"trueprune: error: {message}")
    return code
