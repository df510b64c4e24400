"""Errors in the words of the command line: what happened, and what to do next."""

from fanwire.client.errors import FanwireError, SlowConsumer
from fanwire.extras import MissingExtra, missing_extra
from fanwire.protocol import LocalProtocolError


def explain(error: BaseException) -> str | None:
    """One line of text.

    Returns:
        `None` for what is no user's concern but a defect, and needs its traceback.
    """
    if isinstance(error, SlowConsumer):
        return _slow(error)
    if isinstance(error, FanwireError | LocalProtocolError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        missing = missing_extra("this command", "all", error)
        return str(missing) if isinstance(missing, MissingExtra) else None
    return None


def _slow(error: SlowConsumer) -> str:
    # The SDK's own text names the arguments of a call.
    waiting = "" if error.queued is None else f": {error.queued} messages were waiting"
    return (
        f"messages of {error.pattern} came faster than they were taken{waiting}; ask for less "
        "(a narrower pattern, --max-rate of `fanwire sub`), keep only the newest (its --on-slow conflate), or let what "
        "reads the output be faster"
    )
