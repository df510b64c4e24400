"""`fanwire token`, and `fanwire serve --auth-file`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from fanwire.broker import read_auth
from fanwire.broker.auth.authenticator import Authenticator
from fanwire.commandline import run
from tests.integration.cli_programs import started
from tests.keys import EDDSA, ES256, HS256, RS256, Pair, known

ROLES = """
[auth]
[[auth.roles]]
name = "reader"
subscribe = ["stocks.>"]
"""


def _new(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    assert run(["token", "new", *options]) == 0
    printed = capsys.readouterr()
    return printed.out.strip(), printed.err


def _check(monkeypatch: pytest.MonkeyPatch, token: str, *options: str) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{token}\n".encode())))
    return run(["token", "check", *options])


def test_a_new_token_and_what_belongs_into_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token alone on standard output; its hash, as TOML, on standard error. No two are alike."""
    token, entry = _new(capsys, "--user", 'a"b\\c', "--role", "reader")
    file = tmp_path / "auth.toml"
    file.write_text(ROLES + entry)

    assert token not in entry
    assert token != _new(capsys, "--user", "a")[0]
    assert Authenticator(read_auth(str(file))).authenticate(token).user == 'a"b\\c'
    assert _check(monkeypatch, token, "--auth-file", str(file), "--subscribe", "stocks.A") == 0
    assert capsys.readouterr().out.splitlines() == [
        'user: a"b\\c',
        "good for: ever",
        "subscribe: stocks.>",
        "may subscribe to stocks.A",
    ]
    assert _check(monkeypatch, token, "--auth-file", str(file), "--publish", "stocks.A") == 1
    assert "may not publish on stocks.A" in capsys.readouterr().out


@pytest.mark.parametrize("pair", [HS256, EDDSA], ids=lambda pair: pair.algorithm)
def test_a_new_jwt(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed with the key given; a broker with the other half of it takes it."""
    private, public = tmp_path / "private", tmp_path / "public"
    private.write_bytes(pair.private)
    public.write_bytes(pair.public)
    file = tmp_path / "auth.toml"
    file.write_text(f'{ROLES}[[auth.keys]]\nfile = "public"\nalgorithm = "{pair.algorithm}"\nkid = "k"\n')
    options = ("--user", "alice", "--role", "reader", "--kid", "k", "--key", str(private))
    token, _ = _new(capsys, *options, "--algorithm", pair.algorithm, "--seconds", "60")

    assert _check(monkeypatch, token, "--auth-file", str(file), "--subscribe", "stocks.*") == 0
    assert "user: alice" in capsys.readouterr().out
    assert _check(monkeypatch, token[:-8] + "AAAAAAAA", "--auth-file", str(file)) == 1
    assert "error: not accepted: wrong signature" in capsys.readouterr().err
    assert run(["token", "new", *options, "--algorithm", "RS256"]) == 1
    assert "cannot sign with RS256" in capsys.readouterr().err
    assert run(["token", "new", *options]) == 2


def test_serve_refuses_a_file_that_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says the file and the key, and nothing is started; also if a key file is not there."""
    file = tmp_path / "auth.toml"
    file.write_text("[auth]\nkeyss = []\n")
    assert run(["serve", "--auth-file", str(file)]) == 78
    assert "auth.keyss is no setting; did you mean 'keys'?" in capsys.readouterr().err
    file.write_text(ROLES + '[[auth.keys]]\nfile = "nothing.pem"\nalgorithm = "RS256"\n')
    assert run(["serve", "--auth-file", str(file)]) == 78
    assert f"{tmp_path / 'nothing.pem'}: No such file" in capsys.readouterr().err


def test_importing_the_broker_does_not_import_cryptography() -> None:
    """It costs 15 MiB and is for those who have keys."""
    program = "import sys, fanwire.broker.cli.serve; print('jwt' in sys.modules, 'cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]


def test_commands_take_the_token_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FANWIRE_TOKEN; without it, or with a bad one, they say that they are refused."""
    file = tmp_path / "auth.toml"
    roles = '[auth]\n[[auth.roles]]\nname = "all"\npublish = [">"]\n[[auth.tokens]]\nroles = ["all"]\nuser = "me"\n'
    file.write_text(f'{roles}sha256 = "{known("fw_x", "me").sha256}"\n')
    with started("serve", "--port", "0", "--auth-file", str(file)) as broker:
        url = broker.heard("listening on (ws://.*)")[1]
        ends = []
        for token in ("fw_x", "fw_y", "a b", ""):
            monkeypatch.setenv("FANWIRE_TOKEN", token)
            with started("pub", "stocks.A", "1", url=url) as command:
                status, _, error = command.ended()
                ends.append((status, error))

    assert [status for status, _ in ends] == [0, 1, 78, 1]
    assert "HTTP 401, the token is not accepted" in ends[1][1]
    assert "FANWIRE_TOKEN: a token is a text of visible ASCII" in ends[2][1]
    assert "a token is needed here" in ends[3][1]
    assert all(error.startswith("error: ") for _, error in ends[1:])


_PEM = (Encoding.PEM, PrivateFormat.PKCS8)
_CURVE = ec.generate_private_key(ec.SECP384R1()).private_bytes(*_PEM, NoEncryption())
_SHORT = rsa.generate_private_key(65537, 1024).private_bytes(*_PEM, NoEncryption())
_LOCKED = ed25519.Ed25519PrivateKey.generate().private_bytes(*_PEM, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("algorithm", "key", "reason"),
    [
        ("RS256", ES256.private, "this is no key for RS256, but one for ES256"),
        ("ES256", EDDSA.private, "this is no key for ES256, but one for EdDSA"),
        ("EdDSA", RS256.private, "this is no key for EdDSA, but one for RS256"),
        ("ES256", _CURVE, "this is no key for ES256"),
        ("RS256", _SHORT, "the RSA key has 1024 bits; RS256 needs 2048 or more"),
        ("EdDSA", EDDSA.public, "this is a public key; signing needs the private one"),
        ("EdDSA", _LOCKED, "this key needs a password; write it without one first"),
        ("EdDSA", b"what?", "this is not a private key as PEM"),
        ("ES256", b"\xff\x00", "this is not a private key as PEM"),
        ("HS256", b"short", "the secret has 5 bytes; HS256 needs 32 or more"),
        ("HS256", b"", "the secret has 0 bytes; HS256 needs 32 or more"),
        ("HS256", EDDSA.private, "this is a key of another sort, not the secret of an HMAC"),
    ],
)
def test_a_wrong_key_is_told(
    algorithm: str, key: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before a token is made that no broker accepts."""
    file = tmp_path / "key"
    file.write_bytes(key)

    assert run(["token", "new", "--user", "a", "--key", str(file), "--algorithm", algorithm]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {file} cannot sign with {algorithm}: {reason}")
    assert err.count("\n") == 1
