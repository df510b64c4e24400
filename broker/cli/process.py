"""How a process that does nothing but broker is set up for it. Not for embedding: it changes the whole interpreter."""

from __future__ import annotations

import gc

try:
    import resource
except ModuleNotFoundError:  # Windows: there is no such limit
    _RESOURCE = False
else:
    _RESOURCE = True


def tune() -> None:
    """Keep the garbage collector and the limit on open files out of the way. Call once, when all modules are loaded.

    A full collection walks all connections, and shows as p99. What is loaded by now lives for ever: freeze it. Messages
    are freed by their reference counts; cycles arise once a connection, so rare collections suffice.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    raise_open_files()


def raise_open_files() -> int | None:
    """Raise the soft limit on open files to the hard one; return it. Each client takes one.

    None where there is no such limit.
    """
    if not _RESOURCE:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
