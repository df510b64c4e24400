"""The table of endpoints is complete enough to judge requests by, and to describe them."""

import re

import attrs
import pytest

from fanwire.broker.http.answers import HttpError
from fanwire.broker.http.endpoint_table import ENDPOINTS
from fanwire.broker.http.endpoints import MAX_VALUE, Parameter, errors_of, find
from fanwire.broker.http.metrics import COUNTERS, COUNTERS_BY, GAUGES, HISTOGRAMS
from fanwire.broker.http.who import Who
from fanwire.broker.telemetry.statistics import BrokerStatistics


def test_every_variable_part_of_a_path_is_described() -> None:
    """And nothing is described as one that is none."""
    for endpoint in ENDPOINTS:
        described = {each.name for each in endpoint.parameters if each.where == "path"}
        assert described == set(re.findall(r"\{(\w+)\}", endpoint.path)), endpoint.path


def test_every_path_and_method_is_there_once() -> None:
    """The first would hide the second."""
    served = [(each.method, each.path) for each in ENDPOINTS]

    assert len(served) == len(set(served))


def test_only_health_and_the_description_are_for_everybody() -> None:
    """What is new is so only on purpose."""
    open_ones = {each.path for each in ENDPOINTS if each.who is Who.EVERYBODY}

    assert open_ones == {"/healthz", "/readyz", "/v1/openapi.json"}


def test_who_must_be_known_may_be_refused() -> None:
    """401 and 403 are among the answers."""
    for endpoint in ENDPOINTS:
        assert ({401, 403} <= errors_of(endpoint).keys()) is (endpoint.who is not Who.EVERYBODY)


@pytest.mark.parametrize(
    "path", ["/", "", "/healthz/", "//healthz", "/v1/topics//last", "/v1/topics/a/b/last", "/V1/stats", "*"]
)
def test_paths_that_are_none(path: str) -> None:
    """No part is left out, doubled, or guessed."""
    if path == "/v1/topics//last":
        assert find(ENDPOINTS, "GET", path)[1] == {"topic": ""}  # no topic, which the handler says
        return
    with pytest.raises(HttpError) as caught:
        find(ENDPOINTS, "GET", path)

    assert caught.value.code == "not_found"


def test_another_method_is_told_which_there_are() -> None:
    """HEAD comes with GET."""
    with pytest.raises(HttpError) as caught:
        find(ENDPOINTS, "DELETE", "/healthz")

    assert caught.value.headers == {"Allow": "GET, HEAD"}
    assert find(ENDPOINTS, "HEAD", "/healthz")[0].method == "GET"


def test_parts_are_cut_before_they_are_decoded() -> None:
    """A slash that is written %2F parts nothing, and dots lead nowhere."""
    assert find(ENDPOINTS, "GET", "/v1/topics/..%2f..%2fetc/last")[1] == {"topic": "../../etc"}
    assert find(ENDPOINTS, "GET", "/v1/topics/%C3%A9/last")[1] == {"topic": "é"}


def test_a_path_that_is_no_text() -> None:
    """Behind its percent signs."""
    with pytest.raises(HttpError) as caught:
        find(ENDPOINTS, "GET", "/v1/topics/%ff/last")

    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "1e3", "٣", "9" * 4000, str(MAX_VALUE + 1), "0x10", " 1", "1_0"]
)
def test_numbers_that_are_none(text: str) -> None:
    """However they are written."""
    with pytest.raises(HttpError):
        Parameter("n", "a number", type="integer", least=1).read(text)


def test_every_figure_has_a_metric() -> None:
    """What is counted can be scraped."""
    names = {field.name for field in attrs.fields(BrokerStatistics)}

    sums = {total for _, _, total in HISTOGRAMS.values() if total}
    assert GAUGES.keys() | COUNTERS.keys() | COUNTERS_BY.keys() | HISTOGRAMS.keys() | sums == names
