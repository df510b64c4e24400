"""Which patterns can match a common topic, against trying all topics of a small alphabet."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanwire.protocol import matches, patterns_overlap

# Of two patterns with tokens a, b, $a and up to three of them: if any topic matches both, then one of these does. "c"
# stands for all that they do not name, four tokens for all that are longer.
TOPICS = [".".join(tokens) for size in range(1, 5) for tokens in product(["a", "b", "c", "$a"], repeat=size)]

_tokens = st.lists(st.sampled_from(["a", "b", "$a", "*"]), max_size=3)
patterns = st.builds(
    lambda tokens, rest: ".".join([*tokens, ">"] if rest or not tokens else tokens), _tokens, st.booleans()
)


@given(patterns, patterns)
def test_they_overlap_if_a_topic_matches_both(one: str, other: str) -> None:
    """And it does not matter which of them comes first."""
    expected = any(matches(one, topic) and matches(other, topic) for topic in TOPICS)

    assert patterns_overlap(one, other) == patterns_overlap(other, one) == expected


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "*.b", True),
        (">", "$sys.>", False),
        ("*.b", "$a.*", False),
        ("$a.*", "$a.>", True),
        ("a.*.c", "*.b.*", True),
        ("a.*.c", "*.b.*.>", False),
        ("a.>", "b.>", False),
    ],
)
def test_examples(one: str, other: str, overlap: bool) -> None:
    """`>` is one token or more, and no wildcard is a first token with `$`."""
    assert patterns_overlap(one, other) == patterns_overlap(other, one) == overlap
