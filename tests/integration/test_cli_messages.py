"""`fanwire pub` and `fanwire sub` against a broker, all in processes of their own."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .cli_programs import COMMAND, DEADLINE_S, Program, ran, serving, started

NOBODY = "ws://127.0.0.1:1/"
"""Port 1 needs a privilege to listen on, and nobody uses it."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker for all tests of this file; each has topics of its own."""
    with serving() as (_broker, url):
        yield url


@contextmanager
def _listening(url: str, *arguments: str) -> Iterator[Program]:
    """A `fanwire sub` that is subscribed."""
    with started("sub", *arguments, url=url) as program:
        program.heard("^listening to ", program.stderr)
        yield program


def test_what_is_published_is_printed(url: str) -> None:
    """Text, JSON and bytes come out as what they were; the subscriber ends after its count with 0."""
    with _listening(url, "kinds.>", "--json", "--count", "3") as subscriber:
        assert ran("pub", "kinds.text", "grün", url=url)[0] == 0
        assert ran("pub", "kinds.json", "--json", '{"price": 1.5}', url=url)[0] == 0
        assert ran("pub", "kinds.raw", "--raw", "-", url=url, stdin=b"\xff\x00")[0] == 0
        status, out, _ = subscriber.ended()

    printed = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(line["topic"], line["data"], line["encoding"]) for line in printed] == [
        ("kinds.text", "grün", "text"),
        ("kinds.json", {"price": 1.5}, "msgpack"),
        ("kinds.raw", {"$bin": "/wA="}, "raw"),
    ]


def test_a_line_is_out_as_soon_as_its_message_is_here(url: str) -> None:
    """Through a pipe, too, a message is printed at once, while the subscriber goes on."""
    with _listening(url, "atonce.a") as subscriber:
        ran("pub", "atonce.a", "hello", url=url)

        assert subscriber.stdout.readline() == "atonce.a  hello\n"


@pytest.mark.parametrize("policy", ["disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"])
def test_sub_asks_for_what_it_is_told_to(url: str, policy: str) -> None:
    """Every policy, a queue and the report of losses are taken, and messages come as ever."""
    options = ("--on-slow", policy, "--queue", "7", "--report-loss", "--count", "1")
    with _listening(url, f"policy.{policy}", *options) as subscriber:
        ran("pub", f"policy.{policy}", "x", url=url)

        assert subscriber.ended()[:2] == (0, f"policy.{policy}  x\n")


def test_sub_tells_of_silence(url: str) -> None:
    """Among the messages as JSON, else on standard error; it is no message that counts."""
    with _listening(url, "silent.a", "--heartbeat", "0.2", "--count", "1", "--json") as subscriber:
        first = json.loads(subscriber.stdout.readline())
        ran("pub", "silent.a", "x", url=url)
        status, out, _ = subscriber.ended()
    with _listening(url, "silent.b", "--heartbeat", "0.2") as subscriber:
        said = subscriber.stderr.readline()

    assert (first["topic"], first["connected"]) == ("silent.a", True)
    assert (status, json.loads(out.splitlines()[-1])["data"]) == (0, "x")
    assert said == "quiet: nothing on silent.b for 0.2 s\n"


def test_subs_of_one_group_share_what_comes(url: str) -> None:
    """Each of two programs gets one of two messages, and ends. Neither publishes, so without echo is the same."""
    options = ("--group", "workers", "--no-echo", "--count", "1")
    with _listening(url, "group.a", *options) as one, _listening(url, "group.a", *options) as other:
        for text in ("x", "y"):
            status, out, _ = ran("pub", "group.a", text, url=url)
            assert (status, out) == (0, "published 1 message to 1 subscriber on group.a\n")
        ended = [program.ended()[:2] for program in (one, other)]

    assert sorted(ended) == [(0, "group.a  x\n"), (0, "group.a  y\n")]


def test_sub_gets_the_newest_at_its_rate(url: str) -> None:
    """Of a thousand messages at once few come, each newer than the one before; none of the others counts as lost."""
    with _listening(url, "rate.a", "--max-rate", "10", "--count", "2") as subscriber:
        numbers = "\n".join(map(str, range(1000)))
        assert ran("pub", "rate.a", "-", url=url, stdin=numbers)[0] == 0
        status, out, err = subscriber.ended()

    first, second = (int(line.removeprefix("rate.a  ")) for line in out.splitlines())
    assert first < second
    assert second - first > 1
    assert (status, err) == (0, "")


def test_pub_tells_how_many_got_it(url: str) -> None:
    """The broker's answer names the subscribers."""
    with _listening(url, "told.*"):
        _, out, _ = ran("pub", "told.a", "x", url=url)

    assert out == "published 1 message to 1 subscriber on told.a\n"
    assert ran("pub", "told.b", "x", url=url)[1] == "published 1 message to 0 subscribers on told.b\n"
    assert ran("pub", "told.b", "x", "--quiet", url=url) == (0, "", "")


def test_lines_of_standard_input_are_messages(url: str) -> None:
    """Each line is a message, in order; --count takes the first of them."""
    lines = [f"line {number}" for number in range(500)]
    with _listening(url, "lines.a", "--json", "--count", "503") as subscriber:
        assert ran("pub", "lines.a", "-", url=url, stdin="\n".join(lines)) == (
            0,
            "published 500 messages on lines.a\n",
            "",
        )
        assert ran("pub", "lines.a", "-", "--count", "3", url=url, stdin="a\nb\nc\nd\n")[0] == 0
        _, out, _ = subscriber.ended()

    assert [json.loads(line)["data"] for line in out.splitlines()] == [*lines, "a", "b", "c"]


def test_a_file_is_one_message(url: str, tmp_path: Path) -> None:
    """A file's bytes are published as they are."""
    (tmp_path / "file").write_bytes(b"\x00a\nb\xff")
    with _listening(url, "file.a", "--json", "--count", "1") as subscriber:
        assert ran("pub", "file.a", "--file", str(tmp_path / "file"), url=url)[0] == 0
        _, out, _ = subscriber.ended()

    assert json.loads(out)["data"] == {"$bin": "AGEKYv8="}


def test_count_repeats_a_message(url: str) -> None:
    """--count publishes the same data again and again."""
    with _listening(url, "again.a", "--count", "5") as subscriber:
        assert ran("pub", "again.a", "x", "--count", "5", "--rate", "1000", url=url)[0] == 0
        status, out, _ = subscriber.ended()

    assert (status, out) == (0, "again.a  x\n" * 5)


def test_a_wrong_line_is_named(url: str) -> None:
    """The number of the line and the place in it are told; the status is that of wrong usage."""
    status, _, err = ran("pub", "wrong.a", "--json", "-", url=url, stdin="1\n{]\n")

    assert status == 2
    assert err.startswith("error: line 2 of standard input is not JSON: column 2: ")


@pytest.mark.parametrize("count", ["1", "3"])
def test_what_is_not_acknowledged_fails(url: str, count: str) -> None:
    """A topic that is the broker's own is refused, and the status says so: for one message and for many."""
    status, out, err = ran("pub", "$sys.mine", "x", "--count", count, url=url)

    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert "(forbidden)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["pub", "a", "x"], ["sub", "a"], ["watch", "a"], ["feed"], ["bench", "--seconds", "1"]],
)
def test_without_a_broker_there_is_a_hint(arguments: list[str]) -> None:
    """Nobody listens there: one line says what to do."""
    status, out, err = ran(*arguments, url=NOBODY)

    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err


def test_sub_that_hears_too_little_fails(url: str) -> None:
    """--timeout before --count is status 1, with a summary."""
    status, out, err = ran("sub", "silence", "--count", "1", "--timeout", "0.2", url=url)

    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("0 messages in 0.")


@pytest.mark.parametrize(
    ("arguments", "number", "expected"),
    [
        ([], signal.SIGINT, 0),
        ([], signal.SIGTERM, 0),
        (["--count", "9"], signal.SIGINT, 130),
        (["--count", "9"], signal.SIGTERM, 143),
    ],
)
def test_ctrl_c_ends_sub_with_a_summary(url: str, arguments: list[str], number: signal.Signals, expected: int) -> None:
    """How many there were is told; the status is 0, unless a --count was not reached."""
    with _listening(url, f"ctrlc.{number}.{expected}", *arguments) as subscriber:
        ran("pub", f"ctrlc.{number}.{expected}", "x", url=url)
        subscriber.stdout.readline()
        status, _, err = subscriber.signalled(number)

    assert status == expected
    assert err.startswith("1 messages in ")


def test_a_reader_that_goes_away_ends_sub_in_silence(url: str) -> None:
    """`fanwire sub … | head -1` ends with the head's end: no traceback, status 0."""
    with _listening(url, "head.a") as subscriber:
        subscriber.process.stdout = None  # so that nobody reads it again
        ran("pub", "head.a", "1", url=url)
        assert subscriber.stdout.readline() == "head.a  1\n"
        subscriber.stdout.close()
        ran("pub", "head.a", "2", url=url)
        status, _, err = subscriber.ended()

    assert (status, err) == (0, "")


def test_sub_into_a_pipe_that_nobody_reads_keeps_up(url: str) -> None:
    """A reader that stands still for a while loses nothing: the messages wait in the subscriber."""
    with _listening(url, "still.a", "--count", "20000") as subscriber:
        assert ran("pub", "still.a", "x" * 100, "--count", "20000", url=url)[0] == 0
        status, out, _ = subscriber.ended()

    assert (status, len(out.splitlines())) == (0, 20_000)


def test_interrupting_pub_is_not_success(url: str) -> None:
    """Ctrl-C while lines are still to come is status 130, and needs no line to come."""
    with (
        subprocess.Popen(
            [*COMMAND, "pub", "interrupted.a", "-", "--url", url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        _listening(url, "interrupted.a") as subscriber,
    ):
        assert process.stdin is not None
        process.stdin.write("x\n")
        process.stdin.flush()
        assert subscriber.stdout.readline() == "interrupted.a  x\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        assert process.stderr is not None
        assert process.stderr.read().strip() == ""


def test_what_is_remembered_is_printed() -> None:
    """The last value and the history to a subscriber, and the history alone."""
    with serving("--rule", "h.> history=3", "--rule", "r.> retain=yes") as (_broker, url):
        ran("pub", "h.a", "-", url=url, stdin="1\n2\n3\n4\n")
        ran("pub", "r.a", "room", url=url)
        ran("pub", "x.a", "kept", "--retain", url=url)

        assert ran("history", "h.a", url=url)[1].splitlines() == ["h.a  2", "h.a  3", "h.a  4"]
        assert ran("history", "h.a", "--last", "1", url=url)[1] == "h.a  4\n"
        assert ran("history", "h.a", "--after", "3", "--json", url=url)[1].endswith('"offset": 4}\n')
        assert ran("sub", "h.*", "--last", "2", "--count", "2", url=url)[1].splitlines() == ["h.a  3", "h.a  4"]
        assert sorted(ran("sub", "r.*", "x.*", "--snapshot", "--count", "2", url=url)[1].splitlines()) == [
            "r.a  room",
            "x.a  kept",
        ]
        assert ran("pub", "x.a", "", "--raw", "--retain", url=url)[0] == 0
        assert ran("sub", "x.*", "--snapshot", "--count", "1", "--timeout", "1", url=url)[1] == ""


def test_the_history_of_a_topic_without_one(url: str) -> None:
    """An error in one line; so are two beginnings."""
    status, _, err = ran("history", "nothing.a", url=url)
    assert (status, err.startswith("error: nothing.a keeps no history")) == (1, True)
    assert ran("history", "nothing.a", "--last", "1", "--after", "2", url=url)[0] == 2


def _served(url: str, replies: int) -> "subprocess.Popen[str]":
    """A program that answers each request with what was asked and a number, so many times; it says when it serves."""
    program = (
        "import fanwire, trio\n"
        "async def main():\n"
        f"    async with fanwire.connect({url!r}) as client, client.serve('cli.echo') as requests:\n"
        "        print('serving', flush=True)\n"
        "        async for request in requests:\n"
        f"            for number in range({replies}):\n"
        "                await request.reply([request.data, number])\n"
        "trio.run(main)\n"
    )
    return subprocess.Popen([COMMAND[0], "-c", program], stdout=subprocess.PIPE, text=True)


def test_a_request_prints_its_replies(url: str) -> None:
    """As many as were asked for, each on a line; fewer in time is 1, and says how many."""
    with _served(url, 2) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "serving\n"
            one = ran("request", "cli.echo", "hallo", url=url)
            two = ran("request", "cli.echo", "--json", '{"a": 1}', "--count", "2", url=url)
            more = ran("request", "cli.echo", "x", "--count", "3", "--timeout", "0.5", url=url)
        finally:
            program.kill()

    assert one == (0, '["hallo", 0]\n', "")
    assert two == (0, '[{"a": 1}, 0]\n[{"a": 1}, 1]\n', "")
    assert more == (1, '["x", 0]\n["x", 1]\n', "error: 2 of 3 replies within 0.5 s\n")


def test_a_request_that_nobody_serves_fails(url: str) -> None:
    """With a line that says so; data that is not what it is said to be is wrong usage."""
    status, out, err = ran("request", "cli.nobody", url=url)

    assert (status, out) == (1, "")
    assert err == "error: nobody is subscribed to 'cli.nobody', so nobody will reply (no_responders)\n"
    assert ran("request", "cli.nobody", "--json", "{", url=url)[0] == 2


def test_a_broker_that_ends_is_one_line() -> None:
    """The client's log says nothing beside what the command says."""
    with serving() as (broker, url), started("sub", "t", url=url) as subscriber:
        subscriber.heard("^listening to ", subscriber.stderr)
        command = [*COMMAND, "pub", "t", "-", "--url", url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdin is not None
            assert publisher.stderr is not None
            publisher.stdin.write("hello\n")
            publisher.stdin.flush()
            subscriber.heard("^t  hello$")
            broker.process.kill()
            subscriber.heard("^connection lost", subscriber.stderr)
            _, err = publisher.communicate("and again\n", timeout=DEADLINE_S)
            status = publisher.wait(DEADLINE_S)

    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith("error: ")


def test_a_feed_tells_that_the_broker_is_away() -> None:
    """As `fanwire sub` does, and not in the words of the log."""
    with serving() as (broker, url), started("feed", "--speed", "100", "--loop", url=url) as feed:
        feed.heard("^publishing on ", feed.stderr)
        broker.process.kill()
        line = feed.stderr.readline()

    assert line == "connection lost: trying to reach the broker again\n"
