"""Topics and patterns, case by case."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from fanwire.protocol import (
    LocalProtocolError,
    check_pattern,
    check_topic,
    foreign_wildcards,
    is_wildcard,
    matches,
    split,
)

TOPICS = ["a", "stocks.AAPL", "$sys.stats", "$inbox.t0ken.7", "a.$b", "börse.☃", "a-b_c/d:e", "t" * 255, "☃" * 85]
PATTERNS = ["*", ">", "*.*", "a.*.b", "a.>", "*.>", "$sys.>", "$inbox.t0ken.*"]


@pytest.mark.parametrize("name", TOPICS)
def test_topics_are_topics_and_patterns(name: str) -> None:
    """Every topic may be published to, and subscribed to."""
    assert (check_topic(name), check_pattern(name), is_wildcard(name)) == (name, name, False)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_wildcards_and_no_topics(name: str) -> None:
    """What has a wildcard is a pattern, and cannot be published to."""
    assert (check_pattern(name), is_wildcard(name)) == (name, True)
    with pytest.raises(LocalProtocolError, match="belong in patterns only"):
        check_topic(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "topic is empty"),
        ("a..b", "topic 'a..b': token 2 of 3 is empty"),
        (".a", "topic '.a': token 1 of 2 is empty"),
        ("a.", "topic 'a.': token 2 of 2 is empty"),
        ("a b", "topic 'a b' has the whitespace U+0020 at position 1"),
        ("a\n", r"topic 'a\n' has the control character U+000A at position 1"),
        ("a\x85", r"topic 'a\x85' has the control character U+0085 at position 1"),
        ("a.\xa0", r"topic 'a.\xa0' has the whitespace U+00A0 at position 2"),
        ("a.\u2028", r"topic 'a.\u2028' has the whitespace U+2028 at position 2"),
        ("\udc00", r"topic '\udc00' has U+DC00, half of a surrogate pair, at position 0"),
        ("a.*", "topic 'a.*': token 2 is '*', but '*' and '>' belong in patterns only"),
        ("t" * 256, f"topic '{'t' * 40}'… has 256 characters; at most 255 bytes of UTF-8 are allowed"),
        ("é" * 128, f"topic '{'é' * 128}' has 256 bytes in UTF-8; at most 255 are allowed"),
    ],
)
def test_a_refused_topic_says_what_and_where(name: str, fault: str) -> None:
    """The message can be acted on without looking anything up."""
    with pytest.raises(LocalProtocolError) as caught:
        check_topic(name)

    assert (caught.value.code, str(caught.value)) == ("bad_topic", fault)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a.>.b", "pattern 'a.>.b': token 2 is '>', which may only be the last one"),
        ("a*", "pattern 'a*': token 1 is 'a*', but '*' and '>' stand alone in a token"),
        ("a.>>", "pattern 'a.>>': token 2 is '>>', but '*' and '>' stand alone in a token"),
        ("*.", "pattern '*.': token 2 of 2 is empty"),
        ("", "pattern is empty"),
    ],
)
def test_a_refused_pattern_says_what_and_where(name: str, fault: str) -> None:
    """The message can be acted on without looking anything up."""
    with pytest.raises(LocalProtocolError) as caught:
        check_pattern(name)

    assert (caught.value.code, str(caught.value)) == ("bad_pattern", fault)


def test_exactly_unicodes_blanks_and_controls_are_refused() -> None:
    """The characters written out in the code are those of the Unicode database: Cc, Zs, Zl, Zp, and surrogates."""
    refused = set()
    for point in range(sys.maxunicode + 1):
        try:
            check_topic(chr(point))
        except LocalProtocolError:
            refused.add(chr(point))

    wanted = {
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in ("Cc", "Cs", "Zs", "Zl", "Zp") or character.isspace()
    }
    assert refused == wanted | set(".*>")


def test_a_refusal_of_a_huge_name_is_short() -> None:
    """A peer cannot make us write its megabytes into a log."""
    with pytest.raises(LocalProtocolError) as caught:
        check_topic("t" * 1_000_000)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c.d", True),
        ("a.>", "a", False),
        (">", "a", True),
        (">", "$sys.stats", False),
        ("*.stats", "$sys.stats", False),
        ("*", "$sys", False),
        ("$sys.>", "$sys.stats", True),
        ("$sys.*", "$sys.stats", True),
        ("a.*", "a.$b", True),
        ("a.>", "a.$b", True),
        ("A", "a", False),
    ],
)
def test_matching(pattern: str, topic: str, expected: bool) -> None:
    """`*` is one token, `>` one or more, and a first token with `$` is matched by its name only."""
    assert matches(pattern, topic) is expected


def test_split() -> None:
    """Tokens are what stands between the dots."""
    assert split("a.b.c") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("stocks/#", "stocks.>"),
        ("stocks.#", "stocks.>"),
        ("#", ">"),
        ("stocks/+/price", "stocks.*.price"),
        ("stocks.+", "stocks.*"),
        ("/stocks/AAPL", "stocks.AAPL"),
        ("stocks/AAPL", "stocks.AAPL"),
        ("a.#.b", None),
        ("/", None),
        ("stocks.>", ""),
        ("a.b/c", ""),
        ("a+b.c#", ""),
        ("$sys.>", ""),
    ],
)
def test_wildcards_of_other_systems_are_recognised(pattern: str, meant: str | None) -> None:
    """They are valid patterns, which do not match what their author thinks. An empty text here: nothing is wrong."""
    check_pattern(pattern)
    hint = foreign_wildcards(pattern)

    if meant == "":
        assert hint is None
    else:
        assert hint is not None
        assert ("did you mean" in hint) is (meant is not None)
        assert meant is None or hint.endswith(f"did you mean {meant!r}?")
