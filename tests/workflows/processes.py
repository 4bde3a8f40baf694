"""Runs one command line in several processes that start at the same moment.

They are forks of a process that has imported everything, so that each costs no start of its own.
Arguments: number of processes, folder for their outputs, command line.
"""

import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


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


def main() -> None:
    from tests.crashes import import_everything

    import_everything()
    count, logs, *arguments = sys.argv[1:]
    children = []
    for number in range(int(count)):
        child = os.fork()
        if child == 0:
            run(arguments, Path(logs, f"{number}.log"))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(codes, key=abs))


if __name__ == "__main__":
    main()
