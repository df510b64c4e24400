"""The file that says who may come in: what it may hold, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanwire.broker.settings.auth import Auth, AuthKey
from fanwire.broker.settings.auth_file import BadAuthFile, read_auth
from fanwire.broker.settings.roles import Role
from tests.keys import known

DIGEST = known("fw_x", "x").sha256

GOOD = f"""
[auth]
issuer = "https://login.example"
audience = "fanwire"
leeway_s = 5
default_roles = ["reader"]
jwks_file = "keys/set.json"

[[auth.keys]]
file = "public.pem"
algorithm = "RS256"
kid = "2026"

[[auth.tokens]]
user = "feeder"
sha256 = "{DIGEST}"
roles = ["writer"]
expires = 2030-01-01T00:00:00Z

[[auth.roles]]
name = "reader"
subscribe = ["stocks.>", "user.{{sub}}.>"]
subscribe_deny = ["stocks.secret.>"]

[[auth.roles]]
name = "writer"
publish = ["stocks.>"]
demand = true
"""


def _read(folder: Path, text: str) -> Auth:
    (folder / "auth.toml").write_text(text)
    return read_auth(str(folder / "auth.toml"))


def test_all_of_it(tmp_path: Path) -> None:
    """Paths are relative to the file; everything else is as written."""
    auth = _read(tmp_path, GOOD)

    assert auth.keys == (AuthKey(file=str(tmp_path / "public.pem"), algorithm="RS256", kid="2026"),)
    assert auth.jwks_file == str(tmp_path / "keys/set.json")
    assert (auth.issuer, auth.audience, auth.leeway_s) == ("https://login.example", "fanwire", 5)
    assert auth.roles[1] == Role(name="writer", publish=("stocks.>",), demand=True)
    assert [token.user for token in auth.tokens] == ["feeder"]
    assert DIGEST not in repr(auth)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[auth]", "[auth", "not TOML"),
        (GOOD, "", "there is no [auth]"),
        ("[auth]\n", "stray = 1\n[auth]\n", "'stray' does not belong here"),
        ("leeway_s = 5", "leeway = 5", "auth.leeway is no setting; did you mean 'leeway_s'?"),
        ("leeway_s = 5", 'leeway_s = "5"', "auth: leeway_s must be a number from 0 to 3,600"),
        ("leeway_s = 5", "leeway_s = -1", "leeway_s must be a number from 0"),
        ('issuer = "https://login.example"', "issuer = 5", "auth: 'issuer' must be"),
        ('default_roles = ["reader"]', 'default_roles = "reader"', "a list of texts is needed"),
        (
            'default_roles = ["reader"]',
            'default_roles = ["raeder"]',
            "default_roles: there is no role 'raeder'; there are",
        ),
        ('algorithm = "RS256"', 'algorithm = "none"', "auth.keys[0]: algorithm is 'none'"),
        ('algorithm = "RS256"', 'algorithm = "RS512"', "must be one of HS256, RS256, ES256, EdDSA"),
        ('algorithm = "RS256"\n', "", "auth.keys[0].algorithm is missing"),
        ("[[auth.keys]]", "[auth.keys]", "write [[auth.keys]]"),
        (DIGEST, "fw_the_token_itself", "auth.tokens[0]: sha256 must be 64 hexadecimal digits"),
        ("2030-01-01T00:00:00Z", "2030-01-01", "with its time zone"),
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00", "with its time zone"),
        ('user = "feeder"', 'user = "a\\nb"', "auth.tokens[0]: a user is"),
        ('roles = ["writer"]', 'roles = ["writer", "x"]', "tokens[0].roles: there is no role 'x'"),
        ("stocks.secret.>", "stocks.>.x", "auth.roles[0]: subscribe_deny: "),
        ("user.{sub}.>", "user-{sub}.>", "a variable is a whole token"),
        ("user.{sub}.>", "user.{sub.>", "a variable is a whole token"),
        ('["stocks.>", "user', '["$sys.>", "user', "operator = true"),
        ('publish = ["stocks.>"]', "publish = [7]", "publish must be a list of patterns"),
        ('publish = ["stocks.>"]', 'publish = "stocks.>"', "a list of texts is needed"),
        ("demand = true", "demand = 1", "auth.roles[1]: 'demand' must be"),
        ('name = "writer"', 'name = "reader"', "roles: 'reader' stands there twice"),
        ("leeway_s = 5", 'anonymous_roles = ["reader"]', "role 'reader' needs the claim 'sub'"),
    ],
)
def test_mistakes_say_where_they_are(old: str, new: str, says: str, tmp_path: Path) -> None:
    """The file, the key, and what it should be."""
    assert GOOD.count(old) == 1

    with pytest.raises(BadAuthFile) as caught:
        _read(tmp_path, GOOD.replace(old, new))

    assert str(caught.value).startswith(f"{tmp_path / 'auth.toml'}: ")
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Says so."""
    with pytest.raises(BadAuthFile, match="No such file"):
        read_auth(str(tmp_path / "nothing.toml"))


def test_settings_by_which_nobody_could_come_in() -> None:
    """Are no settings; nor are tokens that could do nothing."""
    with pytest.raises(ValueError, match="nobody could come in"):
        Auth()
    with pytest.raises(ValueError, match="has no roles"):
        Auth(tokens=[known("fw_x", "x")])
    with pytest.raises(ValueError, match="the same token stands there twice"):
        Auth(tokens=[known("fw_x", "x", "r"), known("fw_x", "y", "r")], roles=[Role(name="r")])
