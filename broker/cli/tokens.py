"""`fanwire token`: make tokens, and see what a broker would say to one."""

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import click

from fanwire.broker.auth.authenticator import Authenticator
from fanwire.broker.auth.failure import AuthenticationFailed
from fanwire.broker.auth.identity import Identity
from fanwire.broker.settings.auth import ALGORITHMS
from fanwire.broker.settings.auth_file import read_auth
from fanwire.client.cli.command import Group
from fanwire.client.cli.options import pattern as pattern_type
from fanwire.client.cli.options import topic as topic_type
from fanwire.client.cli.output import note, say
from fanwire.client.cli.stdin_lines import read_whole
from fanwire.client.cli.text import NotText, read_text

_LONGEST = 16 * 1024
"""Bytes of standard input that `check` reads."""

_SECONDS = click.IntRange(1, 100 * 31_536_000)


@click.group(
    cls=Group, short_help="Make tokens, and check them.", context_settings={"help_option_names": ["-h", "--help"]}
)
def token() -> None:
    """Make tokens, and check them.

    \b
    Examples:
      fanwire token new --user feeder --role publisher
      fanwire token check --auth-file auth.toml < token.txt

    \b
    Exit status:
      0  made, or good
      1  not accepted, not allowed, or a file cannot be used
      2  wrong usage
    """


@token.command(short_help="Make a token.")
@click.option("--user", required=True, metavar="NAME", help="Whose token it is.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="What they may do. May be given several times.")
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Make a JWT, signed with this file: a private key as PEM, or for HS256 the secret.",
)  # fmt: skip
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="What the key is for.")
@click.option("--kid", metavar="ID", help="The key's name, for the header of the JWT.")
@click.option("--issuer", metavar="TEXT", help="The JWT's `iss`.")
@click.option("--audience", metavar="TEXT", help="The JWT's `aud`.")
@click.option("--seconds", type=_SECONDS, default=3600, show_default=True, help="How long the JWT is good.")
def new(
    user: str, roles: tuple[str, ...], key: Path | None, algorithm: str | None,
    kid: str | None, issuer: str | None, audience: str | None, seconds: int,
) -> None:  # fmt: skip
    """Make a token, and print it.

    Without --key it is a random text of 256 bits. What the broker has to know of it, its hash, is printed on standard
    error, as the lines that belong into the file of `fanwire serve --auth-file`. With --key it is a JWT, for trying
    things out: usually another program signs them.

    \b
    Examples:
      fanwire token new --user feeder --role publisher
      fanwire token new --user alice --key private.pem --algorithm EdDSA --seconds 600

    \b
    Exit status:
      0  made
      1  the key cannot be read, or is not one of the algorithm
      2  wrong usage
    """
    if (key is None) is not (algorithm is None):
        raise click.UsageError("--key and --algorithm belong together", click.get_current_context())
    if key is None or algorithm is None:
        _print_random(user, roles)
        return
    wanted = {"sub": user, "iss": issuer, "aud": audience, "roles": list(roles) or None}
    claims = {name: value for name, value in wanted.items() if value is not None}
    say(_signed(claims, key, algorithm, kid, seconds))


def _print_random(user: str, roles: tuple[str, ...]) -> None:
    text = "fw_" + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    say(text)
    listed = ", ".join(map(_quoted, roles))
    note(
        f"[[auth.tokens]]\nuser = {_quoted(user)}\nroles = [{listed}]\n"
        f'sha256 = "{hashlib.sha256(text.encode()).hexdigest()}"'
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _signed(claims: Mapping[str, object], key: Path, algorithm: str, kid: str | None, seconds: int) -> str:
    import jwt  # slow to import, and needed for this alone

    from fanwire.broker.auth.jwt_keys import BadKey, load_signing_key

    try:
        material = load_signing_key(str(key), algorithm)
    except BadKey as error:
        reason = str(error).removeprefix(f"{key}: ")
        raise click.ClickException(f"{key} cannot sign with {algorithm}: {reason}") from None
    now = int(time.time())
    return jwt.encode(
        {**claims, "iat": now, "exp": now + seconds}, material, algorithm, {"kid": kid} if kid is not None else None
    )


@token.command(short_help="See what a broker would say to a token.")
@click.option("--auth-file", required=True, metavar="FILE", help="As for `fanwire serve`.")
@click.option("--publish", "publishes", type=topic_type, multiple=True, help="Say whether it may publish there.")
@click.option(
    "--subscribe", "subscribes", type=pattern_type, multiple=True, help="Say whether it may subscribe to that."
)
def check(auth_file: str, publishes: tuple[str, ...], subscribes: tuple[str, ...]) -> int:
    """Say whose token is on standard input, how long it is good, and what it allows; ends with 1 if it is not accepted,
    or does not allow what was asked for.

    Only standard input, since others can see the arguments of a command.

    \b
    Example:
      fanwire token check --auth-file auth.toml --publish stocks.AAPL < token.txt

    \b
    Exit status:
      0  accepted, and it allows what was asked for
      1  not accepted, not allowed, or the file cannot be used
      2  wrong usage
    """
    try:
        identity = Authenticator(read_auth(auth_file)).authenticate(read_text(read_whole(_LONGEST)).strip())
    except AuthenticationFailed as failure:
        raise click.ClickException(f"not accepted: {failure.reason}") from None
    except NotText as error:
        raise click.ClickException(f"standard input {error}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _print_identity(identity)
    permissions = identity.permissions
    answers = [(f"publish on {topic}", permissions.may_publish(topic)) for topic in publishes]
    answers += [(f"subscribe to {pattern}", permissions.may_subscribe(pattern)) for pattern in subscribes]
    for what, allowed in answers:
        say(f"{'may' if allowed else 'may not'} {what}")
    return 0 if all(allowed for _, allowed in answers) else 1


def _print_identity(identity: Identity) -> None:
    left = identity.expires_in_s
    say(f"user: {identity.user}")
    say(f"good for: {'ever' if left is None else f'{left:.0f} s'}")
    for name, patterns in identity.permissions.as_map().items():
        say(f"{name.replace('_', ' ')}: {' '.join(patterns)}")
