"""What the fields of envelopes and options may hold: one validator (in attrs' sense) for each sort of value.

Types are compared exactly: True is no integer, and neither is an enum's member (it would not pack as one).
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeGuard

import attrs

from .codes import MAX_MAP, MAX_NUMBER, Encoding
from .errors import LocalProtocolError
from .ranges import RATE
from .topics import MAX_NAME_BYTES, check_topic


@attrs.frozen
class Key:
    """A key of a map, where a validator expects an envelope's field."""

    name: str
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


Field: TypeAlias = "attrs.Attribute[Any] | Key"
Validator: TypeAlias = Callable[[Any, Field, Any], None]

OPTION: Final = {"option": True}
"""Metadata of an envelope's field that stands in an option map on the wire."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def shown(value: object) -> str:
    """A value for an error message: never long, whatever a peer sent."""
    return _repr.repr(value)


def bad_option(name: str, message: str) -> LocalProtocolError:
    """The error for an option that is unknown or has a wrong value."""
    error = LocalProtocolError(message, code="bad_option")
    error.option = name
    return error


def refusal(instance: Any, field: Field, value: object, wanted: str) -> LocalProtocolError:
    """The error for a field's wrong value."""
    kind = getattr(instance, "kind", None)
    if kind is None or field.metadata.get("option"):
        return bad_option(field.name, f"option {field.name!r} is {shown(value)}; it must be {wanted}")
    return LocalProtocolError(f"{kind.name}: {field.name} is {shown(value)}; it must be {wanted}")


# Written out, since every envelope has several: a call less for each is a fifth of what decoding costs.
def unsigned(instance: Any, field: Field, value: object) -> None:
    """0 … 2^64 - 1."""
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise refusal(instance, field, value, "an unsigned integer of at most 64 bits")


def request_id(instance: Any, field: Field, value: object) -> None:
    """An id where 0 won't do, because the answer is needed."""
    if type(value) is not int or not 0 < value <= MAX_NUMBER:
        raise refusal(instance, field, value, "a request number from 1 on, since its answer is needed")


def text(instance: Any, field: Field, value: object) -> None:
    """A str."""
    if type(value) is not str:
        raise refusal(instance, field, value, "text")


def payload(instance: Any, field: Field, value: object) -> None:
    """Opaque bytes."""
    if type(value) is not bytes:
        raise refusal(instance, field, value, "bytes (msgpack's bin)")


def encoding(instance: Any, field: Field, value: object) -> None:
    """One of the table, after `to_encoding`."""
    if type(value) is not Encoding:
        raise refusal(instance, field, value, "an integer: 0 raw, 1 msgpack, 2 text, 3 JSON")


def checked(test: Callable[[Any], bool], wanted: str) -> Validator:
    """A validator of what ``test`` allows; ``wanted`` completes "it must be"."""

    def validate(instance: Any, field: Field, value: object) -> None:
        if not test(value):
            raise refusal(instance, field, value, wanted)

    return validate


def or_none(validator: Validator) -> Validator:
    """As ``validator``, or nil."""

    def validate(instance: Any, field: Field, value: object) -> None:
        if value is not None:
            validator(instance, field, value)

    return validate


def one_of(values: tuple[str, ...]) -> Validator:
    """One of a table's words."""
    words = ", ".join(map(repr, values))
    return checked(lambda value: type(value) is str and value in values, f"one of {words}")


def lone_surrogate(error: UnicodeEncodeError) -> str:
    """Where a text has no UTF-8, in words."""
    return f"character {error.start} is half of a surrogate pair (U+{ord(error.object[error.start]):04X})"


def _is_text(value: object) -> bool:
    """Whether it is text that has a form in UTF-8: half of a surrogate pair has none."""
    return type(value) is str and (value.isascii() or _has_utf8(value))


def _has_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_texts(values: Iterable[Any]) -> bool:
    """All at once: a call for each of 16,384 would be a turn of the broker's."""
    texts = list(values)
    return set(map(type, texts)) <= {str} and _is_text("".join(texts))


def _are_unsigned(values: Iterable[Any]) -> bool:
    numbers = list(values)
    return set(map(type, numbers)) <= {int} and min(numbers, default=0) >= 0 and max(numbers, default=0) <= MAX_NUMBER


def _is_map(value: object) -> bool:
    return type(value) is dict and len(value) <= MAX_MAP and _are_texts(value)


def _is_text_map(value: object) -> bool:
    return _is_map(value) and _are_texts(value.values())  # type: ignore[attr-defined]


def _is_offset_map(value: object) -> bool:
    return _is_map(value) and _are_unsigned(value.values())  # type: ignore[attr-defined]


def _is_unsigned(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER


def _is_positive_number(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]


# A time of ours, in microseconds since 1970, is between 1973 and 5138. Seconds and milliseconds of today are far below
# that, nanoseconds far above. 0 stands for "from the beginning".
FIRST_US: Final = 10**14
LAST_US: Final = 10**17
_SECONDS_END: Final = 10**11  # what is less can be milliseconds only of the years before 1973

LONGEST_HEARTBEAT_S: Final = 1_000_000


def moment(instance: Any, field: Field, value: object) -> None:
    """A time in microseconds since 1970, or 0. What can only be seconds, milliseconds or nanoseconds is refused."""
    unsigned(instance, field, value)
    if not value or FIRST_US <= value <= LAST_US:  # type: ignore[operator]  # `unsigned` has seen to it
        return
    raise refusal(instance, field, value, f"microseconds since 1970, or 0 for all that is kept{_unit_meant(value)}")


def _unit_meant(value: Any) -> str:
    if value > LAST_US:
        return "; if these are nanoseconds, divide by 1,000"
    if value >= _SECONDS_END:
        return "; if these are milliseconds, multiply by 1,000"
    return "; if these are seconds, multiply by 1,000,000"


def _is_rate(value: object) -> bool:
    return type(value) in (int, float) and RATE.allows(value)


def _is_heartbeat(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= LONGEST_HEARTBEAT_S  # type: ignore[operator]


def is_topic(value: object) -> TypeGuard[str]:
    """Whether ``value`` is a topic."""
    try:
        return type(value) is str and bool(check_topic(value))
    except LocalProtocolError:
        return False


positive = checked(lambda value: _is_unsigned(value) and value > 0, "an integer from 1 on")
positive_number = checked(_is_positive_number, "a number greater than 0")
rate = checked(_is_rate, str(RATE))
heartbeat = checked(_is_heartbeat, f"a number of seconds greater than 0, at most {LONGEST_HEARTBEAT_S:,}")
flag = checked(lambda value: type(value) is bool, "true or false")
word = checked(lambda value: _is_text(value) and value != "", "text that is not empty, without half surrogate pairs")
short_word = checked(lambda value: _is_text(value) and 0 < len(value) <= 64, "text of 1 to 64 characters")
name_option = checked(
    lambda value: _is_text(value) and value != "" and len(value.encode()) <= MAX_NAME_BYTES,
    f"text of 1 to {MAX_NAME_BYTES} bytes, without half surrogate pairs",
)
text_map = checked(
    _is_text_map, f"a map of text to text, without half surrogate pairs, and with {MAX_MAP:,} entries at most"
)
offset_map = checked(_is_offset_map, f"a map of topics to offsets, {MAX_MAP:,} at most; others can be had with 'since'")
mapping = checked(_is_map, "a map with text as keys")
topic_option = checked(is_topic, "a topic")

_ENCODINGS: Final[dict[object, Any]] = {int(member): member for member in Encoding}


def to_encoding(value: Any) -> Encoding:
    """Converter: the enum's member for a number, RAW for nil; anything else as it is, for `encoding` to refuse."""
    if value is None:
        return Encoding.RAW
    member: Encoding = _ENCODINGS.get(value, value) if type(value) is int else value
    return member


def to_number(value: Any) -> Any:
    """An absent one is 0."""
    return 0 if value is None else value


def to_flag(value: Any) -> Any:
    """An absent one is False."""
    return False if value is None else value


def to_map(value: Any) -> Mapping[str, Any]:
    """Converter: an empty map for nil."""
    return {} if value is None else value
