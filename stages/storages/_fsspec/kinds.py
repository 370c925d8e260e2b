"""What each file system really does when an object gets its name, read from the drivers' sources.

The documentation of fsspec has one answer, `autocommit=False` with `commit` and `discard`. But some
drivers ignore it (Azure, sshfs), some then write to another file system (local: /tmp; FTP: /tmp of
the server), and with one, objects grow in sight of all (OSS). So the drivers that were looked at
are listed here; all others are trusted with nothing but a plain file and a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from pipeline.errors import StorageRefused
from stages.storages._fsspec.tree import overrides
from stages.storages._fsspec.upload import Closed, Committed, Copied, Linked, Renamed, Upload


@dataclass(frozen=True)
class Kind:
    """How a file system is written to."""

    upload: type[Upload]
    fact: str
    """For `check --connect`."""
    sized: bool = True
    """Whether the size of a block may be chosen."""
    has_directories: bool = True
    spares_full: bool = False
    """Whether `rmdir` leaves a directory alone that is not empty."""


_INVISIBLE = (
    "the service shows an object only when its upload is complete; what a killed run sent stays "
    "until the service's rule for incomplete uploads removes it"
)
_RENAMED = "an object is written under another name, and then renamed"
_COPIED = (
    "warning: publishing copies the object: this driver is known neither for uploads that stay "
    "invisible nor for a rename that is one"
)
_MOVED = (
    "warning: publishing moves the object, and whether this driver then copies it, in sight of "
    "others, is not known"
)

_KINDS = {
    "s3fs.core.S3FileSystem": Kind(Committed, _INVISIBLE, has_directories=False),
    "gcsfs.core.GCSFileSystem": Kind(Committed, _INVISIBLE, has_directories=False),
    # Blocks stay invisible until the list of them is written, which closing does.
    "adlfs.spec.AzureBlobFileSystem": Kind(Closed, _INVISIBLE, has_directories=False),
    "fsspec.implementations.local.LocalFileSystem": Kind(
        Linked, _RENAMED, sized=False, spares_full=True
    ),
    # Their block is that of a single request, not of what is buffered.
    "sshfs.spec.SSHFileSystem": Kind(Renamed, _RENAMED, sized=False, spares_full=True),
    "fsspec.implementations.sftp.SFTPFileSystem": Kind(
        Renamed, _RENAMED, sized=False, spares_full=True
    ),
    "fsspec.implementations.smb.SMBFileSystem": Kind(
        Renamed, _RENAMED, sized=False, spares_full=True
    ),
    # `rmdir` of these two removes everything in it.
    "fsspec.implementations.arrow.HadoopFileSystem": Kind(Renamed, _RENAMED, sized=False),
    "fsspec.implementations.webhdfs.WebHDFS": Kind(Renamed, _RENAMED),
    # Takes blocks of 1 MiB and no other.
    "fsspec.implementations.dbfs.DatabricksFileSystem": Kind(Renamed, _RENAMED, sized=False),
    "fsspec.implementations.memory.MemoryFileSystem": Kind(
        Copied, "objects are in the memory of this process, and gone when it ends"
    ),
}

_READ_ONLY = "its driver can only read"
_KEEPS_A_COPY = "its driver keeps a copy of each object on the disk of this machine"
_REFUSED = {
    "fsspec.implementations.http.HTTPFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.http_sync.HTTPFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.github.GithubFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.gist.GistFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.git.GitFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.libarchive.LibArchiveFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.tar.TarFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.zip.ZipFileSystem": (
        "in an archive nothing can be renamed or removed",
        None,
    ),
    "fsspec.implementations.reference.ReferenceFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.data.DataFileSystem": (_READ_ONLY, None),
    "fsspec.implementations.jupyter.JupyterFileSystem": (
        "its driver keeps the whole object in memory",
        None,
    ),
    "fsspec.implementations.cached.CachingFileSystem": (
        _KEEPS_A_COPY,
        "leave the cache out of url",
    ),
    "webdav4.fsspec.WebdavFileSystem": (_KEEPS_A_COPY, "use type: webdav"),
    # It breaks transfers off with ABOR, and waits for an answer that has already come.
    "fsspec.implementations.ftp.FTPFileSystem": (
        "its driver cannot read objects back from common servers",
        "use type: ftp",
    ),
}


def kind_of(driver: type[AbstractFileSystem]) -> Kind:
    """How to write to the file systems of a driver.

    Raises:
        StorageRefused: not without breaking a promise.
    """
    names = [f"{each.__module__}.{each.__qualname__}" for each in driver.__mro__]
    for name in names:
        if name in _KINDS:
            return _KINDS[name]
        if name in _REFUSED:
            why, hint = _REFUSED[name]
            raise StorageRefused(f'"{protocol_of(driver)}" cannot be a storage: {why}', hint)
    if overrides(driver, "cp_file"):
        return Kind(Copied, _COPIED)
    if overrides(driver, "mv"):
        return Kind(Renamed, _MOVED)
    raise StorageRefused(
        f'"{protocol_of(driver)}" cannot be a storage: its driver can neither copy nor rename'
    )


def protocol_of(driver: type[AbstractFileSystem]) -> str:
    """What the file systems of a driver are called in addresses."""
    name = driver.protocol
    return name if isinstance(name, str) else str(name[0])
