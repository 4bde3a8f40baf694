"""Addresses of object storage, the hub or a web server, which fsspec opens: ``s3://bucket/a``."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError, DataError
from response_tuning.rows import one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_WITH_PASSWORD = re.compile(r"[^/]*://[^/]*@")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(text: str) -> bool:
    """Whether a text is an address, such as ``s3://bucket/a.parquet``, and no path."""
    return _ADDRESS.match(text) is not None


def filesystem(address: str) -> "tuple[AbstractFileSystem, str]":
    """Return the file system of an address, and the path in it.

    Raises:
        ConfigError: fsspec does not know the protocol, its package is not installed, or the address
            may hold a key.
    """
    from fsspec.core import url_to_fs

    protocol = address.partition("://")[0]
    # Addresses are kept in audits and printed. The value is not repeated here.
    if _WITH_PASSWORD.match(address) or (protocol.startswith("http") and "?" in address):
        raise ConfigError(
            f"the {protocol} address may hold a key (user:password@, or a query), and the audit "
            "would keep it; leave it out, and give the key as the storage's package reads it, such "
            "as AWS_SECRET_ACCESS_KEY"
        )
    try:
        system, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{address}: '{protocol}' cannot be opened: {one_line(error)}; for S3, install s3fs; "
            "for Google Cloud Storage, gcsfs"
        ) from error
    return system, str(path)


def download(address: str, folder: Path, names: Sequence[str]) -> None:
    """Copy files at an address into a folder.

    Raises:
        DataError: there is no such file, or the address cannot be read.
    """
    system, path = filesystem(address)
    for name in names:
        with _explained(f"{address}: '{name}'"):
            system.get_file(f"{path.rstrip('/')}/{name}", str(folder / name))


def holds(address: str, name: str) -> bool:
    """Whether a file of this name is at an address.

    Raises:
        DataError: the address cannot be read.
    """
    system, path = filesystem(address)
    with _explained(address):
        return bool(system.exists(f"{path.rstrip('/')}/{name}"))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each storage has errors of its own
        why = one_line(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            why = "there is no such file"
        raise DataError(
            f"{what} cannot be read: {why}; check the address and the access to it"
        ) from error


def upload(folder: Path, address: str, names: Sequence[str]) -> None:
    """Copy files of a folder to an address, unless the first of them is there already.

    The first is the seal: it is taken away before the others are written, and written last, so
    that it never lies beside files of which it does not tell.

    Raises:
        DataError: the address cannot be written to.
    """
    system, path = filesystem(address)
    seal, *others = names
    place = path.rstrip("/")
    try:
        if system.exists(f"{place}/{seal}"):
            if system.cat_file(f"{place}/{seal}") == (folder / seal).read_bytes():
                return
            system.rm_file(f"{place}/{seal}")
        system.makedirs(place, exist_ok=True)
        for name in (*others, seal):
            system.put_file(str(folder / name), f"{place}/{name}")
    except Exception as error:  # each storage has errors of its own
        raise DataError(
            f"{address}: cannot be written to: {one_line(error) or type(error).__name__}; check "
            f"the address and the access to it; the files are in {folder}"
        ) from error
