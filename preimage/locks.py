"""Locks between processes and nodes, which die with those who hold them."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Seconds to wait for a lock: the data loaders of a killed process hold it for five more.
PATIENCE = 10.0


class Busy(OSError):
    """Another process is at work on what this one wants to change."""


@contextmanager
def locked(path: Path, wait: float = 0, shared: bool = False) -> Iterator[int]:
    """Holds a lock that dies with the processes that hold it, also under `kill -9`, and also between nodes.

    filelock's locks end with the process that took them. This one lives on in forked children, in those that get the
    descriptor by `pass_fds`, and in those that join: what a killed parent leaves running keeps others out.

    Args:
        path: The file to lock, which is gone when the lock is; its folder is there.
        wait: Try for so many seconds.
        shared: Join those that hold it, as another process of the same run, if there are any.

    Yields:
        The file descriptor; -1 where there is nothing to join, or the folder cannot be written to.

    Raises:
        Busy: Another process holds it.
    """
    deadline = time.monotonic() + wait
    there = path.is_file() if shared else os.access(path.parent, os.W_OK)
    while (descriptor := _lock(path, shared) if there else -1) is None:
        if time.monotonic() >= deadline:
            holder = ""
            with suppress(OSError):  # it has just gone
                holder = path.read_text()
            raise Busy(f"{holder or 'another process'} is at work on it")
        time.sleep(0.05)
    try:
        yield descriptor
    finally:
        if descriptor >= 0:
            if not shared:
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(path: Path, shared: bool) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not shared:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(OSError):  # who holds it is told where the disk has room for it
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which keeps others out, and lets its own join
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                return descriptor  # a file system without locks
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # the one who held it has removed it
