"""Variables whose name begins with FANWIRE_ and that nobody reads: a misspelt one must not go unnoticed.

``FANWIRE_AUTH_FLIE`` would else be a broker that lets everybody in.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping

import click

from fanwire.client.cli.output import note_error, note_warning

PREFIX = "FANWIRE_"

OF_CLIENTS = ("FANWIRE_URL", "FANWIRE_TOKEN")
"""Read by other commands; they may be set for all."""

# Kubernetes sets these for every service; one that is called fanwire gives them our prefix.
_of_kubernetes = re.compile(r"\w*(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?|_PORT)").fullmatch


def unread(command: click.Command, environment: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str | None]]:
    """Names that begin with ours and are no setting's.

    Args:
        command: `fanwire serve`, whose options have variables.
        environment: Where to look.

    Yields:
        The name, and the one that was probably meant.
    """
    known = {str(option.envvar) for option in command.params if isinstance(option, click.Option) and option.envvar}
    endings = [name.removeprefix(PREFIX) for name in sorted(known | set(OF_CLIENTS))]
    for name in sorted(environment):
        if name.startswith(PREFIX) and (ending := name.removeprefix(PREFIX)) not in endings:
            if _of_kubernetes(name) and not (name.endswith("_PORT") and "://" not in environment[name]):
                continue
            near = difflib.get_close_matches(ending.upper(), endings, n=1, cutoff=0.7)
            yield name, PREFIX + near[0] if near else None


def complain(command: click.Command, environment: Mapping[str, str] = os.environ) -> bool:
    """Say on standard error which variables nobody reads.

    Returns:
        Whether one of them is probably a misspelt setting: then nothing should be started.
    """
    misspelt = False
    for name, meant in unread(command, environment):
        if meant is None:
            note_warning(f"{name}: no setting has this variable; nobody reads it")
        else:
            misspelt = True
            note_error(f"{name}: no setting has this variable (did you mean {meant}?)")
    return misspelt
