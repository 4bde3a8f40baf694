"""Command lines in forks of one process that has imported everything; see ``test_crashes.py``.

Reads one order a line and answers with one line. An order may hold a fault: at its n-th file
operation below the working folder the command gets a signal, or the disk is full from then on.
"""

import contextlib
import errno
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = {
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"),
    "shutil.rmtree",
}
TAKES_ROOM = {"open", "os.mkdir"}


class Faults:
    """Counts file operations below a folder, and brings about the fault that is asked for."""

    def __init__(self, folder: Path, kind: str, at: int) -> None:
        self._folder = os.path.realpath(folder)
        self._kind, self._at = kind, at
        self.operations = 0
        self._full = False

    def begin(self) -> None:
        """Watch what Python does itself, and what torch and safetensors write past it."""
        import safetensors.torch
        import torch
        from safetensors import SafetensorError

        sys.addaudithook(self._see)
        system: Any = os
        system.fsync = self._flushed(os.fsync)
        of_torch = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576")
        of_rust = SafetensorError("Error while serializing: I/O error: (os error 28)")
        torch.save = self._torn(torch.save, 1, of_torch)
        rust: Any = safetensors.torch
        rust.serialize_file = self._torn(rust.serialize_file, 1, of_rust)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                return
            paths = [path]
        elif event in EVENTS:
            paths = list(args)
        else:
            return
        if any(self._is_below(path) for path in paths):
            self._operation(str(paths[0]), takes_room=event in TAKES_ROOM)

    def _flushed(self, fsync: Callable[[Any], None]) -> Callable[[int], None]:
        def flush(descriptor: int) -> None:
            if self._is_below(Path(f"/proc/self/fd/{descriptor}").readlink()):
                self._operation("fsync", takes_room=False)
            fsync(descriptor)

        return flush

    def _torn(
        self, write: Callable[..., Any], place: int, refused: Exception
    ) -> Callable[..., Any]:
        """Count a library's own writer twice: before it writes, and when half is written."""

        def half_first(*args: Any, **kwargs: Any) -> Any:
            path = args[place]
            if not self._is_below(path):
                return write(*args, **kwargs)
            try:
                self._operation(str(path))
            except OSError:
                raise refused from None
            found = write(*args, **kwargs)
            whole = Path(path).read_bytes()
            with contextlib.suppress(OSError):
                os.truncate(path, len(whole) // 2)  # one operation more
                if not self._full:
                    Path(path).write_bytes(whole)  # and another
            if self._full:
                raise refused
            return found

        return half_first

    def _operation(self, path: str, *, takes_room: bool = True) -> None:
        self.operations += 1
        if self.operations == self._at and self._kind in signal.Signals.__members__:
            os.kill(os.getpid(), signal.Signals[self._kind])
        if self.operations == self._at and self._kind == "full":
            self._full = True
        if self._full and takes_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _is_below(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(f"{self._folder}/")


def run(order: dict[str, Any]) -> None:
    """Run a command line in a fork; ends the process."""
    os.chdir(order["folder"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115 - the orders come by the other one
    faults = Faults(Path(order["folder"]), order.get("kind", ""), order.get("at", 0))
    code: Any = 0
    try:
        from response_tuning.cli.main import main

        sys.argv = ["rtune", *order["arguments"]]
        faults.begin()
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(order["count"], str(faults.operations).encode())
    os._exit(int(code or 0))


def serve() -> None:
    """Answer orders until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            run(order | {"count": write})
        os.close(write)
        _, status = os.waitpid(child, 0)
        with os.fdopen(read) as counted:
            operations = int(counted.read() or 0)
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps({"code": code, "operations": operations}) + "\n")
        sys.stdout.flush()


def import_everything() -> None:
    """Import what commands import late, so that a fork need not."""
    import matplotlib.pyplot  # noqa: F401
    import peft  # noqa: F401
    import pyarrow  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401

    import response_tuning.cli.main
    import response_tuning.finetune.checkpoints
    import response_tuning.finetune.checks
    import response_tuning.finetune.merge
    import response_tuning.finetune.trainer
    import response_tuning.models.local
    import response_tuning.report
    import response_tuning.workflows.run  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # see ``tests/conftest.py``


if __name__ == "__main__":
    import_everything()
    serve()
