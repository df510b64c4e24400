"""A Unix socket to listen on: made, taken over from a broker that is gone, and removed."""

from __future__ import annotations

import errno
import os
import socket
import stat

import attrs
import trio

AF_UNIX: int | None = getattr(socket, "AF_UNIX", None)
"""The family of Unix sockets; None where there are none, as on Windows."""


@attrs.frozen
class UnixSocket:
    """One that is listened on."""

    listener: trio.SocketListener
    path: str
    _identity: tuple[int, int]

    def close(self) -> None:
        """Stop listening, and remove the file; not if it is another's by now."""
        self.listener.socket.close()
        try:
            if _identity_of(self.path) == self._identity:
                os.unlink(self.path)
        except OSError:
            pass


def listen_on(path: str, mode: str, backlog: int) -> UnixSocket:
    """Make one. Nobody can connect before it has its mode.

    Args:
        path: Where.
        mode: Who may connect: those who may write the file, in octal.
        backlog: Connections that wait to be accepted.

    Raises:
        OSError: It cannot be made, or the system has none; EADDRINUSE: somebody listens there, or it is no socket.
    """
    if AF_UNIX is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets", path)
    _remove_stale(path)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(ours, path)
        os.chmod(path, int(mode, 8))
        ours.listen(backlog)
        ours.setblocking(False)
        return UnixSocket(trio.SocketListener(trio.socket.from_stdlib_socket(ours)), path, _identity_of(path))
    except BaseException:
        ours.close()
        raise


def _bind(ours: socket.socket, path: str) -> None:
    try:
        ours.bind(path)
    except OSError as error:
        raise OSError(error.errno or errno.EINVAL, str(error.strerror or error), path) from None


def _identity_of(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove_stale(path: str) -> None:
    """Remove what a broker left behind that was killed. What is no socket is never removed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is something else, which is no socket", path)
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "somebody listens there", path)
    os.unlink(path)


def _answers(path: str) -> bool:
    """Whether anybody listens there. Connecting to a Unix socket never waits, if one does not wait for room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # its backlog is full, or it is not for us: in any case it is somebody's
            return True
        return True
