"""Other settings while the broker runs."""

import signal
from pathlib import Path

import attrs
import pytest
from trio.testing import MockClock

from fanwire.broker import Config, TopicRule
from fanwire.broker.auth import jwt_keys
from fanwire.broker.cli.config_file import Settings
from fanwire.broker.cli.serve import _reload
from fanwire.broker.settings.auth import Auth, AuthKey, AuthToken
from fanwire.broker.settings.roles import Role
from fanwire.protocol import Error, Ok, Ping, Publish, PublishOptions, Subscribe

from .cli_programs import ran, started
from .raw import connected, serving, subscribed


async def test_rules_hold_for_topics_and_clients_that_are_there(autojump_clock: MockClock) -> None:
    """History for a topic that had none; a cap for the next SUBSCRIBE of a client that is connected."""
    async with serving() as broker:
        client = await connected(broker)
        broker.publish("a", b"before")
        rules = (TopicRule(pattern="a", history=5, retain=True), TopicRule(pattern="b", max_queue=7))
        assert await broker.reload(attrs.evolve(broker.config, rules=rules)) == ()

        broker.publish("a", b"after")
        granted = await client.ask(Subscribe(1, "b"))

        assert isinstance(granted, Ok)
        assert granted.result["queue"] == 7
        kept = broker._hub.store.find("a")
        assert kept is not None
        assert (kept.head, len(list(kept.runs(1))), kept.last is None) == (1, 1, False)
        await broker.reload(attrs.evolve(broker.config, rules=()))
        assert list(kept.runs(1)) == []


async def test_old_history_is_looked_for_from_the_first_rule_that_wants_it(autojump_clock: MockClock) -> None:
    """Once, however often settings change."""
    async with serving() as broker:
        assert not broker._hub.expires
        for seconds in (1.0, 2.0):
            rules = (TopicRule(pattern="a", history=5, history_s=seconds),)
            await broker.reload(attrs.evolve(broker.config, rules=rules))

        assert broker._hub.expires
        assert len(broker._hub.watchdog._watched) == 1


async def test_who_comes_afterwards_has_the_new_limits(autojump_clock: MockClock) -> None:
    """Who is there keeps what WELCOME said, but not the number of subscriptions."""
    async with serving() as broker:
        old = await connected(broker)
        await broker.reload(attrs.evolve(broker.config, max_message_bytes=2048, max_subscriptions=1))
        new = await connected(broker)

        first, second = await old.ask(Subscribe(1, "a")), await old.ask(Subscribe(2, "b"))
        assert isinstance(first, Ok)
        assert isinstance(second, Error)
        assert second.code == "too_many"
        old_session, new_session = broker._hub.sessions
        assert (old_session.config.max_message_bytes, new_session.config.max_message_bytes) == (1024 * 1024, 2048)
        assert new_session.config is broker.config
        assert isinstance(await new.ask(Publish(3, "a", b"x", options=PublishOptions())), Ok)


async def test_what_needs_a_restart_is_named_and_stays(autojump_clock: MockClock) -> None:
    """The rest changes nevertheless."""
    async with serving() as broker:
        auth = Auth(tokens=[AuthToken(sha256="a" * 64, user="alice", roles=["all"])], roles=[Role(name="all")])
        config = attrs.evolve(broker.config, port=1, host="::1", queue=5, auth=auth)

        assert await broker.reload(config) == ("host", "port", "auth")
        assert (broker.config.host, broker.config.port, broker.config.queue) == ("127.0.0.1", Config().port, 5)


async def test_settings_that_cannot_be_used_change_nothing_at_all(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A key that is not there, beside other settings that are good."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 32)
    key = AuthKey(file=str(secret), algorithm="HS256")
    async with serving(auth=Auth(keys=[key])) as broker:
        before = broker.config
        bad = Auth(keys=[AuthKey(file=str(tmp_path / "none"), algorithm="HS256")])

        with pytest.raises(ValueError, match="none"):
            await broker.reload(attrs.evolve(before, queue=5, auth=bad))

        assert broker.config is broker._hub.config is before


async def test_a_key_file_is_read_once(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a file that changes meanwhile cannot be good for one half of a reload and bad for the other."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 32)
    auth = Auth(keys=[AuthKey(file=str(secret), algorithm="HS256")])
    read: list[str] = []

    def reading(path: str) -> bytes:
        read.append(path)
        return b"x" * 32

    async with serving(auth=auth) as broker:
        monkeypatch.setattr(jwt_keys, "read_file", reading)
        await broker.reload(attrs.evolve(broker.config, queue=5))

        assert broker.config.queue == 5
    assert read == [str(secret)]


@pytest.mark.parametrize("failure", [OverflowError("cannot convert float infinity to integer"), RecursionError()])
async def test_whatever_a_file_makes_go_wrong_the_broker_lives_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    """A defect in reading settings is logged, and is not the end of everybody."""

    def again() -> Settings:
        raise failure

    async with serving() as broker:
        reason = await _reload(broker, again)

        assert reason == f"a defect of the broker: {type(failure).__name__}"
        assert await (await connected(broker)).ask(Ping(1)) == Ok(1)
    assert "not reloaded" in caplog.text


async def test_messages_go_on_over_a_reload(autojump_clock: MockClock) -> None:
    """Topics are looked up anew; nobody misses anything."""
    async with serving() as broker:
        client = await subscribed(broker, "a.*")
        for number in range(3):
            broker.publish("a.b", b"%d" % number)
            await broker.reload(attrs.evolve(broker.config, rules=(TopicRule(pattern="a.>", history=number + 1),)))

        assert await client.payloads(3) == [b"0", b"1", b"2"]


def test_sighup_reads_the_file_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    """A real process: new rules, then a mistake, then what needs a restart, then another level."""
    file = tmp_path / "fanwire.toml"
    rule = '[[rules]]\npattern = "a"\nhistory = 5\n'
    file.write_text("port = 0\n", encoding="utf-8")
    with started("serve", "--config", str(file)) as broker:
        url = broker.heard(r"^listening on (ws://127\.0\.0\.1:\d+/)$")[1]
        file.write_text(f"port = 0\n{rule}", encoding="utf-8")
        broker.process.send_signal(signal.SIGHUP)
        broker.heard("event=reloaded", broker.stderr)
        assert ran("pub", "a", "kept", url=url)[0] == 0

        file.write_text("port = 0\n\nprot = 1\n", encoding="utf-8")
        broker.process.send_signal(signal.SIGHUP)
        told = broker.heard('event="not reloaded"', broker.stderr).string
        assert "fanwire.toml:3: unknown option" in told
        assert "kept" in ran("history", "a", url=url)[1]

        endless = rule.replace("5", "{ messages = 5, seconds = nan }")
        file.write_text(f"port = 0\n{endless}", encoding="utf-8")
        broker.process.send_signal(signal.SIGHUP)
        told = broker.heard('event="not reloaded"', broker.stderr).string
        assert "fanwire.toml:4: rule: history_s must be a number from 0.001 to 3,153,600,000, or None, not nan" in told
        assert "kept" in ran("history", "a", url=url)[1]

        file.write_text(f'port = 1\nlog_level = "warning"\n{rule}', encoding="utf-8")
        broker.process.send_signal(signal.SIGHUP)
        told = broker.heard('event="needs a restart"', broker.stderr).string
        assert "setting=port" in told
        assert "fanwire.toml:1" in told
        status, _, err = broker.signalled(signal.SIGTERM)

    assert (status, err) == (0, "")


def test_without_files_sighup_ends_the_broker() -> None:
    """As it does when its terminal is closed."""
    with started("serve", "--port", "0") as broker:
        broker.heard("^listening on")
        status, _, _ = broker.signalled(signal.SIGHUP)

    assert status == -signal.SIGHUP
