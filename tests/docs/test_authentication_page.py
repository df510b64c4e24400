"""docs/authentication.md says what there is, and its example is one."""

import re
from pathlib import Path

import attrs

from fanwire.broker import Auth, AuthCertificate, AuthKey, AuthToken, Role, read_auth
from fanwire.broker.auth.authenticator import Authenticator
from tests.keys import EDDSA, known

from .pages import ROOT, blocks_of
from .tables import code_in, rows_of

PAGE = ROOT / "docs" / "authentication.md"
TABLES = {
    "auth": Auth,
    "auth.keys": AuthKey,
    "auth.tokens": AuthToken,
    "auth.certificates": AuthCertificate,
    "auth.roles": Role,
}


def test_the_example_is_a_file_that_a_broker_takes(tmp_path: Path) -> None:
    """With its key beside it; and its roles are what the page says."""
    [example] = [block for block in blocks_of(PAGE) if block.language == "ini"]
    text = re.sub(r'sha256 = "[0-9a-f]+"', f'sha256 = "{known("fw_x", "x").sha256}"', example.text)
    (tmp_path / "auth.toml").write_text(text, encoding="utf-8")
    (tmp_path / "login.pem").write_bytes(EDDSA.public)
    authenticator = Authenticator(read_auth(str(tmp_path / "auth.toml")))
    token = EDDSA.sign(sub="alice", iss="https://login.example", aud="fanwire", roles=["admin"])
    alice, feeder = authenticator.authenticate(token), authenticator.authenticate("fw_x")
    visitor = authenticator.anonymous

    assert visitor is not None
    assert alice.permissions.may_subscribe("user.alice.>")
    assert alice.permissions.may_subscribe("$sys.stats")
    assert not visitor.permissions.may_subscribe("stocks.>")
    assert visitor.permissions.may_subscribe("stocks.AAPL")
    assert feeder.permissions.may_publish("stocks.AAPL")


def test_every_setting_has_its_row() -> None:
    """In the order of the classes."""
    rows = [(code_in(table)[0], code_in(name)[0]) for table, name, *_ in rows_of(PAGE, "Settings")]

    assert rows == [(table, field.name) for table, cls in TABLES.items() for field in attrs.fields(cls)]
