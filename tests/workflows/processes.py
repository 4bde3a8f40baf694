"""Runs one command line in several processes that start at the same moment."""

import os
import sys
import traceback
from pathlib import Path


def run(arguments: list[str], log: Path) -> None:
    """Run the command in a fork; ends the process."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    code = 0
    try:
        from response_tuning.cli.main import main

        sys.argv = ["rtune", *arguments]
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_at_once(count: int, logs: Path, arguments: list[str]) -> None:
    """Run the command in ``count`` forks of a process that has imported everything.

    They print to ``logs/0.log`` and so on. Ends the process, with the code of one that failed.
    """
    from tests.crashes import import_everything

    import_everything()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            run(arguments, logs / f"{number}.log")
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(codes, key=abs))
