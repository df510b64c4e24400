"""Tokens: whose they are, and the many that are nobody's."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fanwire.broker.auth.authenticator import MAX_TOKEN, Authenticator
from fanwire.broker.auth.failure import AuthenticationFailed
from fanwire.broker.settings.auth import Auth, AuthKey
from fanwire.broker.settings.roles import Role
from tests.keys import EDDSA, ES256, HS256, PAIRS, RS256, SECRET, Pair, known

READER = Role(name="reader", subscribe=("stocks.>", "user.{sub}.>"))


def _authenticator(*keys: AuthKey, **settings: Any) -> Authenticator:
    return Authenticator(Auth(keys=keys, roles=(READER,), **{"default_roles": ["reader"], **settings}))


def _refusal(authenticator: Authenticator, token: str) -> tuple[str, str]:
    with pytest.raises(AuthenticationFailed) as caught:
        authenticator.authenticate(token)
    assert token not in caught.value.reason or not token
    return caught.value.code, caught.value.reason


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.algorithm)
def test_a_jwt_says_whose_it_is(pair: Pair, tmp_path: Path) -> None:
    """By each algorithm: user, what the user may do, and how long."""
    expires = int(time.time()) + 100
    identity = _authenticator(pair.file(tmp_path)).authenticate(pair.sign(sub="alice", exp=expires))

    assert (identity.user, identity.expires_at) == ("alice", expires + 10.0)
    assert identity.permissions.may_subscribe("user.alice.inbox")
    assert not identity.permissions.may_subscribe("user.bob.inbox")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.algorithm)
def test_a_jwt_without_a_signature_is_nobodys(pair: Pair, tmp_path: Path) -> None:
    """`none` in any spelling, with a signature or without."""
    authenticator = _authenticator(pair.file(tmp_path))
    payload = _segment({"sub": "alice", "exp": int(time.time()) + 100})
    for name in ("none", "None", "NONE", "nOnE", "", None, pair.algorithm):
        for signature in ("", "AAAA"):
            assert _refusal(authenticator, f"{_segment({'alg': name, 'typ': 'JWT'})}.{payload}.{signature}")


@pytest.mark.parametrize("pair", [RS256, ES256, EDDSA], ids=lambda pair: pair.algorithm)
def test_a_public_key_is_no_secret(pair: Pair, tmp_path: Path) -> None:
    """HS256 signed with the bytes of the public key: also beside a key that is for HS256."""
    header, payload = _segment({"alg": "HS256"}), _segment({"sub": "alice", "exp": int(time.time()) + 100})
    forged = []
    for material in (pair.public, pair.public.rstrip(b"\n")):
        signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        signed = signature.sign(f"{header}.{payload}".encode(), material)
        forged.append(f"{header}.{payload}.{base64.urlsafe_b64encode(signed).decode().rstrip('=')}")

    keys = pair.file(tmp_path), HS256.file(tmp_path)
    for authenticator in (_authenticator(keys[0]), _authenticator(*keys)):
        assert [_refusal(authenticator, token)[0] for token in forged] == ["unauthenticated"] * 2


def test_the_key_decides_the_algorithm_also_when_the_header_names_the_key(tmp_path: Path) -> None:
    """A key id leads to keys of that id and of the algorithm said, to no other one."""
    key = RS256.file(tmp_path)
    authenticator = _authenticator(AuthKey(file=key.file, algorithm="RS256", kid="one"))

    assert authenticator.authenticate(RS256.sign(sub="a", headers={"kid": "one"})).user == "a"
    assert authenticator.authenticate(RS256.sign(sub="a")).user == "a"
    for token in (
        HS256.sign(sub="a", headers={"kid": "one"}),
        RS256.sign(sub="a", headers={"kid": "other"}),
        RS256.sign(sub="a", headers={"crit": ["b64"], "b64": True}),
    ):
        assert _refusal(authenticator, token)[0] == "unauthenticated"


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "a" * 256},
        {"sub": "a", "exp": None},
        {"sub": "a", "exp": "soon"},
        {"sub": "a", "exp": 10**400},
        {"sub": "a", "nbf": 10**10},
        {"sub": "a", "iat": 10**10},
        {"sub": "a", "aud": "others"},
        {"sub": "a", "roles": 7},
        {"sub": "a", "roles": [7]},
    ],
    ids=repr,
)
def test_claims_that_are_wrong(claims: dict[str, Any], tmp_path: Path) -> None:
    """Signed well, and refused all the same."""
    claims = {"exp": int(time.time()) + 100, **claims}
    token = jwt.api_jws.encode(json.dumps({k: v for k, v in claims.items() if v is not None}).encode(), SECRET, "HS256")

    assert _refusal(_authenticator(HS256.file(tmp_path)), token)[0] == "unauthenticated"


@pytest.mark.parametrize(
    "user", ["a.b", "*", ">", "a b", "$sys", "a\u00a0b", "x" * 250], ids=repr
)  # fmt: skip
def test_a_user_who_would_widen_a_pattern_is_refused(user: str, tmp_path: Path) -> None:
    """Another token, a wildcard, a blank, the broker's own topics, or too long a name."""
    assert _refusal(_authenticator(HS256.file(tmp_path)), HS256.sign(sub=user))[0] == "unauthenticated"


def test_a_missing_claim_is_no_empty_one(tmp_path: Path) -> None:
    """A role that needs a claim is no role for who lacks it; nor may a denied pattern just go missing."""
    role = Role(name="reader", subscribe=(">",), subscribe_deny=("secret.{tenant}.>",))
    authenticator = Authenticator(Auth(keys=[HS256.file(tmp_path)], roles=[role], default_roles=["reader"]))

    assert _refusal(authenticator, HS256.sign(sub="a"))[0] == "unauthenticated"
    assert _refusal(authenticator, HS256.sign(sub="a", tenant=["x"]))[0] == "unauthenticated"
    assert not authenticator.authenticate(HS256.sign(sub="a", tenant=7)).permissions.may_subscribe("secret.7.x")


def test_time_issuer_and_audience(tmp_path: Path) -> None:
    """The clocks may be apart by the leeway; an expired token is told from a bad one."""
    authenticator = _authenticator(HS256.file(tmp_path), issuer="us", audience="fanwire", leeway_s=30)
    now = int(time.time())
    good: dict[str, Any] = {"sub": "a", "iss": "us", "aud": ["other", "fanwire"]}

    assert authenticator.authenticate(HS256.sign(**{**good, "exp": now - 20, "nbf": now + 20})).user == "a"
    assert _refusal(authenticator, HS256.sign(**{**good, "exp": now - 40}))[0] == "expired"
    for wrong in ({"iss": "them"}, {"aud": "other"}, {"iss": None}, {"aud": None}):
        claims = {name: value for name, value in {**good, **wrong}.items() if value is not None}
        assert _refusal(authenticator, HS256.sign(**claims))[0] == "unauthenticated"


def test_roles_come_from_the_token(tmp_path: Path) -> None:
    """As a list or as words; those that are not defined are passed over."""
    roles = (Role(name="writer", publish=("a.>",)), Role(name="all", publish=("b.>",), operator=True))
    authenticator = Authenticator(Auth(keys=[HS256.file(tmp_path)], roles=roles, roles_claim="scope"))

    for scope in ("writer other all", ["writer", "other", "all"]):
        permissions = authenticator.authenticate(HS256.sign(sub="a", scope=scope)).permissions
        assert (permissions.may_publish("a.x"), permissions.may_publish("b.x"), permissions.operator) == (True,) * 3
    none = authenticator.authenticate(HS256.sign(sub="a")).permissions
    assert (none.may_publish("a.x"), none.may_subscribe("a.x"), none.operator) == (False,) * 3


def test_tokens_that_are_no_jwts(tmp_path: Path) -> None:
    """Known by their hash, also beside keys; the settings do not hold the token."""
    tokens = [known("fw_right", "feeder"), known("fw_old", "feeder", expires_in_s=-1)]
    for keys in ((), (HS256.file(tmp_path),)):
        authenticator = _authenticator(*keys, tokens=tokens)
        identity = authenticator.authenticate("fw_right")
        assert (identity.user, identity.expires_in_s) == ("feeder", None)
        assert _refusal(authenticator, "fw_old")[0] == "expired"
        for wrong in ("fw_righ", "fw_right ", "FW_RIGHT", "", "x" * (MAX_TOKEN + 1), "ä", tokens[0].sha256):
            assert _refusal(authenticator, wrong)[0] == "unauthenticated"
    assert "fw_right" not in repr(authenticator._auth)


@pytest.mark.parametrize("token", ["a.b.c", "..", "[" * 4000 + ".b.c", "e30.e30.e30", "eyJ.eyJ", "a.b.c.d.e"])
def test_no_text_makes_it_fall_over(token: str, tmp_path: Path) -> None:
    """Nor one with thousands of brackets where the header should be."""
    authenticator = _authenticator(HS256.file(tmp_path), RS256.file(tmp_path))
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")

    assert _refusal(authenticator, token)[0] == "unauthenticated"
    assert _refusal(authenticator, f"{deep}.e30.AAAA")[0] == "unauthenticated"


def test_equal_rights_are_shared(tmp_path: Path) -> None:
    """A thousand connections of one role have one cache, and rights that nobody has are forgotten."""
    role = Role(name="reader", subscribe=("a.>",))
    authenticator = Authenticator(Auth(keys=[HS256.file(tmp_path)], roles=[role], default_roles=["reader"]))
    one, other = (authenticator.authenticate(HS256.sign(sub=user)) for user in ("a", "b"))

    assert one.permissions is other.permissions


# ------------------------------------------------------------------------- keys


def _error(auth: Auth) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the text is looked at
        Authenticator(auth)
    return str(caught.value)


def _auth(path: Path, algorithm: str, data: bytes) -> Auth:
    path.write_bytes(data)
    return Auth(keys=[AuthKey(file=str(path), algorithm=algorithm)])


def test_keys_that_do_not_fit_are_refused_at_the_start(tmp_path: Path) -> None:
    """By their file, with what to do: another algorithm's, too weak, private, none, not there."""
    path = tmp_path / "key"
    weak = rsa.generate_private_key(65537, 1024).public_key()
    curve = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    for algorithm, data, says in (
        ("HS256", RS256.public, "another sort"),
        ("HS256", b"short", "32 or more"),
        ("RS256", RS256.private, "private"),
        ("RS256", ES256.public, "no key for RS256"),
        ("RS256", weak.public_bytes(*pem), "1024 bits"),
        ("ES256", curve.public_bytes(*pem), "no key for ES256"),
        ("EdDSA", RS256.public, "no key for EdDSA"),
        ("EdDSA", b"what?", "no public key as PEM"),
    ):
        message = _error(_auth(path, algorithm, data))
        assert message.startswith(f"{path}: ")
        assert says in message
    path.unlink()
    assert "No such file" in _error(Auth(keys=[AuthKey(file=str(path), algorithm="RS256")]))


def _jwks(path: Path, *keys: dict[str, Any]) -> Auth:
    path.write_text(json.dumps({"keys": keys}))
    return Auth(jwks_file=str(path), roles=[READER], default_roles=["reader"])


def _jwk(pair: Pair, **more: Any) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name(pair.algorithm)
    return {**json.loads(algorithm.to_jwk(algorithm.prepare_key(pair.public))), **more}


def test_a_key_set(tmp_path: Path) -> None:
    """Keys by their id, each for its algorithm; those for something else are passed over."""
    path = tmp_path / "jwks.json"
    keys = [_jwk(pair, kid=pair.algorithm) for pair in (RS256, ES256, EDDSA)]
    other = {**_jwk(RS256, kid="enc", use="enc")}, {**_jwk(RS256, kid="512", alg="RS512")}, {"kty": "new"}
    secret = _jwk(HS256, kid="HS256")
    authenticator = Authenticator(_jwks(path, *keys, *other, {**secret, "alg": "HS256"}))

    for pair in PAIRS:
        assert authenticator.authenticate(pair.sign(sub="a", headers={"kid": pair.algorithm})).user == "a"
    assert _refusal(authenticator, RS256.sign(sub="a", headers={"kid": "enc"}))[0] == "unauthenticated"


def test_key_sets_that_cannot_be_used(tmp_path: Path) -> None:
    """Say which file, and which key."""
    path = tmp_path / "jwks.json"
    twice = [_jwk(RS256, kid="a"), _jwk(RS256, kid="a")]
    secret = {**_jwk(HS256), "alg": "HS256", "k": "c2hvcnQ"}

    assert "none of its 1 keys" in _error(_jwks(path, {"kty": "oct", "k": "AAAA"}))  # it does not say what it is for
    assert "key id 'a'" in _error(_jwks(path, *twice))
    assert f"{path}: keys[0]: holds a private key" in _error(_jwks(path, _jwk(RS256, d="AQAB")))
    assert "keys[0]: the secret has 5 bytes" in _error(_jwks(path, secret))
    assert "keys[0]: cannot be read" in _error(_jwks(path, {"kty": "RSA", "n": "!", "e": "AQAB"}))
    for text in ("[]", "{}", '{"keys": 1}', "{", "[" * 100_000):
        path.write_text(text)
        assert str(path) in _error(Auth(jwks_file=str(path)))
