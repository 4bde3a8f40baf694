"""Errors in the terms of a library user, who passes keywords and no flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from response_tuning.errors import ResponseTuningError

_FLAG = re.compile(r"(?<![\w-])--(?:set )?([a-z][a-z_.-]*[a-z])")


@contextmanager
def in_keywords() -> Iterator[None]:
    """Name a keyword, or a key of a recipe, where a message for the command line names a flag.

    The modules below name flags, because most people who read their errors use the command line,
    which prints the message as it was.
    """
    try:
        yield
    except ResponseTuningError as error:
        error.in_flags = str(error)
        line = re.sub("name it with --[a-z-]+, or", "give it as a keyword, or", str(error))
        error.args = (_FLAG.sub(lambda flag: f"'{flag[1].replace('-', '_')}'", line),)
        raise
