"""`fanwire kick`: send clients away."""

from urllib.parse import quote

import click

from fanwire.client.cli.command import Command
from fanwire.client.cli.options import url_option
from fanwire.client.cli.output import note_error, say
from fanwire.client.cli.running import run

from .http_query import ask


@click.command(cls=Command, short_help="Send clients away.")
@click.argument("sessions", metavar="SESSION...", nargs=-1, required=True)
@url_option
def kick(sessions: tuple[str, ...], url: str) -> int:
    """End connections, by the names that `fanwire connections` and the log have for them.

    Their clients are told `forbidden` (close code 4003) and do not come back by themselves. To keep somebody out, take
    the token or the role from them first. It asks over HTTP, as `fanwire connections` does.

    \b
    Examples:
      fanwire kick 4f1c92ab
      fanwire connections --json | jq -r 'select(.name == "old-feed").session' | xargs fanwire kick

    \b
    Exit status:
      0  all of them were sent away
      1  one was not there, no broker, or it does not do that
      2  wrong usage
    """
    return run(_kick, sessions, url)


async def _kick(sessions: tuple[str, ...], url: str) -> int:
    failed = 0
    for session in sessions:
        try:
            await ask(url, "DELETE", f"/v1/connections/{quote(session, safe='')}")
        except click.ClickException as error:
            if len(sessions) == 1:
                raise
            failed += 1
            note_error(error.format_message())
        else:
            say(f"{session} disconnected")
    return 1 if failed else 0
