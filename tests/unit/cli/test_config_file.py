"""Where settings come from, and what is said of mistakes."""

import re
from pathlib import Path

import attrs
import click
import pytest

from fanwire.broker import Config, TopicRule
from fanwire.broker.cli.config_command import page, template
from fanwire.broker.cli.config_file import EX_CONFIG, KEYS, BadSettings, Given, Settings, resolve
from fanwire.broker.cli.options import SETTINGS, Setting, rule_of
from fanwire.broker.cli.serve import serve
from fanwire.broker.settings.rule_text import size_of, whole
from fanwire.client.cli.command import BadVariable
from fanwire.commandline import run
from fanwire.protocol.ranges import range_of
from tests.docs.pages import ROOT, blocks_of

AUTH = f"""
[auth]
default_roles = ["all"]
[[auth.roles]]
name = "all"
publish = [">"]
[[auth.tokens]]
user = "alice"
sha256 = "{"a1" * 32}"
"""


def _read(tmp_path: Path, text: str, **given: Given) -> Settings:
    file = tmp_path / "fanwire.toml"
    file.write_text(text, encoding="utf-8")
    return resolve(file, given)


def _problems(tmp_path: Path, text: str, **given: Given) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        _read(tmp_path, text, **given)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_without_anything_all_is_default() -> None:
    """As in Python."""
    assert resolve(None, {}) == Settings(Config(), "info", "auto", {})


def test_the_file_is_overridden_by_what_is_given(tmp_path: Path) -> None:
    """And each value says where it comes from."""
    settings = _read(tmp_path, "\nport = 1\nqueue = 2\n", queue=Given(3, "FANWIRE_QUEUE"))

    assert (settings.config.port, settings.config.queue) == (1, 3)
    assert settings.origins == {"port": f"{tmp_path}/fanwire.toml:2", "queue": "FANWIRE_QUEUE"}


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('max_pending = "4MiB"', "max_pending_bytes", 4 * 1024 * 1024),
        ("max_pending = 4096", "max_pending_bytes", 4096),
        ('max_pending = "none"', "max_pending_bytes", None),
        ("stall_timeout = 3", "stall_timeout_s", 3.0),
        ("stall_timeout = 0.5", "stall_timeout_s", 0.5),
        ('host = "::1"', "host", "::1"),
        ("require_hello = true", "require_hello", True),
        ('server = "ours"', "server", "ours"),
    ],
)
def test_values_are_written_as_for_the_command_line(tmp_path: Path, line: str, field: str, value: object) -> None:
    """Or as TOML has them."""
    assert getattr(_read(tmp_path, line).config, field) == value


def test_a_rule_means_the_same_in_a_file_and_on_the_command_line(tmp_path: Path) -> None:
    """All parts of it."""
    (rule,) = _read(
        tmp_path,
        """
        [[rules]]
        pattern = "a.>"
        user = "x*"
        on_slow = "conflate"
        max_queue = 5
        max_rate = 2.5
        publisher_wait = 2
        retain = true
        presence = false
        history = { messages = 3, seconds = 4, bytes = "1KiB" }
        """,
    ).config.rules

    assert rule == rule_of(
        "a.> user=x* on_slow=conflate max_queue=5 max_rate=2.5 publisher_wait=2"
        " retain=yes presence=no history=3 history_seconds=4 history_bytes=1KiB"
    )


def test_every_field_of_a_rule_can_stand_in_a_file() -> None:
    """So that one that is added is not forgotten."""
    assert {field.name for field in attrs.fields(TopicRule)} == {
        "pattern", "user", "on_slow", "max_queue", "max_rate", "publisher_wait_s", "retain", "presence",
        "history", "history_s", "history_bytes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\nprot = 3", 'fanwire.toml:2: unknown option "prot" (did you mean "port"?)'),
        ("stall_timeout_s = 3", 'fanwire.toml:1: unknown option "stall_timeout_s" (did you mean "stall_timeout"?)'),
        ("a = 1\nport = [", "fanwire.toml:2: this is not TOML: Invalid value"),
        ("port = 1\nport = 2", "fanwire.toml:2: this is not TOML: Cannot overwrite a value"),
        ('port = "x"', "fanwire.toml:1: port: 'x' is not a whole number"),
        ("queue = true", "fanwire.toml:1: queue: True is no n"),
        ("host = 1", "fanwire.toml:1: host: 1 is not a text: write it in quotes"),
        ('require_hello = "yes"', "fanwire.toml:1: require_hello: 'yes' must be true or false"),
        ('log_level = "loud"', "fanwire.toml:1: log_level: 'loud' must be one of debug, info, warning, error"),
        ('path = "x"', "fanwire.toml:1: path must begin with '/', not 'x'"),
        ("queue = 7\nmax_queue = 6", "fanwire.toml:1: queue is 7, but max_queue (fanwire.toml:2) allows 6"),
        ("rules = 3", "fanwire.toml:1: rules must be a list of tables: write [[rules]]"),
        ("[[rules]]\nretain = true", "fanwire.toml:1: rule: a rule is a table with a pattern"),
        ('[[rules]]\npattern = "a"', "fanwire.toml:1: rule: this rule says nothing"),
        ('[[rules]]\npattern = "a"\nretian = true', 'fanwire.toml:3: rule: unknown option "retian" (did you mean'),
        ('[[rules]]\npattern = "a"\nretain = "maybe"', "fanwire.toml:3: rule: retain: 'maybe' is neither yes nor no"),
        (
            '[[rules]]\npattern = "a"\n\nmax_rate = 0',
            "fanwire.toml:4: rule: max_rate must be a number from 0.001",
        ),
        (
            '[[rules]]\npattern = "a"\nretain = true\n[[rules]]\npattern = "b"\nhistory = { seconds = 4 }',
            "fanwire.toml:6: rule: history_s says how long",
        ),
        ('[[rules]]\npattern = "a"\nhistory.byts = 4', 'fanwire.toml:3: rule: unknown option "history.byts"'),
        (AUTH + 'expries = "x"', "fanwire.toml:10: auth.tokens[0].expries is no setting; did you mean 'expires'?"),
        (
            'port = 1\n\n[[auth.keys]]\nfile = "none.pem"\nalgorithm = "RS256"',
            "fanwire.toml:3: none.pem: No such file or directory",
        ),
        ('auth_file = "none.toml"', "fanwire.toml:1: "),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """And with what was probably meant."""
    problems = _problems(tmp_path, text)

    assert any(told.startswith(problem) for told in problems), problems


def test_all_mistakes_are_told(tmp_path: Path) -> None:
    """Not only the first."""
    problems = _problems(tmp_path, 'prot = 1\nqueu = 2\n[[rules]]\npattern = "a*"\nretain = true', auth=Given("x", "V"))

    assert [problem.partition(" ")[0] for problem in problems] == [
        "fanwire.toml:1:", "fanwire.toml:2:", "fanwire.toml:4:", "V:",
    ]  # fmt: skip


def test_two_ways_to_say_who_may_come_in_contradict_each_other(tmp_path: Path) -> None:
    """Which of them would count?"""
    (tmp_path / "auth.toml").write_text(AUTH, encoding="utf-8")

    assert _problems(tmp_path, f'auth_file = "auth.toml"\n{AUTH}') == [
        "fanwire.toml:1: auth_file and [auth] contradict each other: keep one of them"
    ]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(BadSettings, match=r"none\.toml: No such file or directory"):
        resolve(tmp_path / "none.toml", {})


def test_what_init_writes_is_the_default(tmp_path: Path) -> None:
    """As it is, and with every comment taken away from a setting."""
    lively = re.sub(r"^#(?=\w+ = )", "", template(), flags=re.MULTILINE)

    assert _read(tmp_path, template()).config == _read(tmp_path, lively).config == Config()
    assert set(_read(tmp_path, lively).origins) == {key.field for key in KEYS}


def test_the_example_of_init_is_a_rule(tmp_path: Path) -> None:
    """With its comment taken away."""
    _, header, rule = template().partition("#  [[rules]]")
    lively = re.sub(r"^#  ", "", header + rule, flags=re.MULTILINE)

    assert len(_read(tmp_path, lively).config.rules) == 1


def test_the_file_on_the_page_is_good(tmp_path: Path) -> None:
    """docs/configuration.md, The file."""
    (block,) = [block for block in blocks_of(ROOT / "docs" / "configuration.md") if block.language == "toml"]

    settings = _read(tmp_path, block.text)

    assert (settings.config.port, settings.log_level, len(settings.config.rules)) == (9000, "warning", 2)


def test_the_page_of_settings_is_current() -> None:
    """Else: fanwire config docs > docs/settings.md."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page()


# ----------------------------------------------------------------- commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FANWIRE_CONFIG", raising=False)
    return tmp_path


def test_init_writes_no_file_over_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless it is told to."""
    statuses = [run(["config", "init"]), run(["config", "check"]), run(["config", "init"])]
    (folder / "fanwire.toml").write_text("x", encoding="utf-8")

    assert statuses == [0, 0, 1]
    assert "--force replaces it" in capsys.readouterr().err
    assert run(["config", "init", "--force"]) == 0
    assert (folder / "fanwire.toml").read_text(encoding="utf-8") == template()


def test_check_and_serve_end_with_78_for_a_bad_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both say the same."""
    (folder / "fanwire.toml").write_text("\nprot = 1", encoding="utf-8")

    statuses = [run(["config", "check"]), run(["serve", "--config", "fanwire.toml"])]

    assert statuses == [EX_CONFIG, EX_CONFIG]
    assert (
        capsys.readouterr().err.splitlines()
        == ['error: fanwire.toml:2: unknown option "prot" (did you mean "port"?)'] * 2
    )


def test_show_says_where_each_value_comes_from_and_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Default, file, variable, flag; the later one counts."""
    (folder / "f.toml").write_text(f"max_queue = 11\nqueue = 2\nport = 3\nlinger = 4\n{AUTH}", encoding="utf-8")
    monkeypatch.setenv("FANWIRE_CONFIG", "f.toml")
    monkeypatch.setenv("FANWIRE_PORT", "5")
    monkeypatch.setenv("FANWIRE_LINGER", "6")
    monkeypatch.setenv("FANWIRE_LOG_LEVEL", "debug")

    assert run(["config", "show", "--linger", "7", "--rule", "a max_rate=1"]) == 0

    shown = dict(re.findall(r"^(\S+ = .*?) +# (.+)$", capsys.readouterr().out, re.MULTILINE))
    assert shown['path = "/"'] == "default"
    assert shown["queue = 2"] == "f.toml:2"
    assert (shown["port = 5"], shown["linger = 7"]) == ("FANWIRE_PORT", "--linger")
    assert (shown['log_level = "debug"'], shown["rules[0].max_rate = 1.0"]) == ("FANWIRE_LOG_LEVEL", "--rule")
    assert shown["auth.tokens[0].user = 'alice'"] == shown["auth.tokens[0].sha256 = ***"] == "f.toml:6"
    assert not any("a1a1" in line for line in shown)


_NUMBERS = [setting for setting in SETTINGS if range_of(attrs.fields_dict(Config)[setting.field]) is not None]


@pytest.mark.parametrize("setting", _NUMBERS, ids=lambda setting: setting.name)
def test_a_number_out_of_its_range_is_refused_at_every_door(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an option, in a variable and in the file: the setting, the value and the range are named."""
    for value in ("99999999999999999999", "-1") if setting.type in (whole, size_of) else ("nan", "-inf", "1e308", "-1"):
        with pytest.raises(click.BadParameter) as caught:
            serve.make_context("serve", [setting.option, value])
        assert caught.value.param is not None
        assert setting.option in caught.value.param.opts
        assert repr(value) in caught.value.message
        monkeypatch.setenv(setting.variable, value)
        with pytest.raises(BadVariable) as bad:
            serve.make_context("serve", [])
        monkeypatch.delenv(setting.variable)
        assert f"{setting.variable}: {value!r} is " in bad.value.message
        (problem,) = _problems(tmp_path, f"{setting.name} = {value}")
        assert problem.startswith(f"fanwire.toml:1: {setting.name}: ")


@pytest.mark.parametrize("setting", _NUMBERS, ids=lambda setting: setting.name)
def test_infinity_means_no_limit_where_there_may_be_none(setting: Setting, tmp_path: Path) -> None:
    """As "none" does; else it is refused."""
    if not setting.may_be_none:
        assert "inf" in _problems(tmp_path, f"{setting.name} = inf")[0]
        return
    context = serve.make_context("serve", [setting.option, "inf"])

    assert getattr(_read(tmp_path, f"{setting.name} = inf").config, setting.field) is None
    assert context.params[setting.field] is None


MULTI = '''server = """
port = 1
[[rules]]
\\"""  "quoted" # no comment
"""
allowed_origins = [  # an array, with a comment [
    "https://a.example",
    "null", # queue = 5
]
path = \'\'\'
/\'\'\'
"queue" = 0
[[rules]]
pattern = "a" # "
max_rate = 0
'''


def test_lines_are_right_behind_values_of_several_lines(tmp_path: Path) -> None:
    """Also where they look like keys and tables."""
    problems = _problems(tmp_path, MULTI)

    assert [problem.partition(": ")[0] for problem in problems] == [
        "fanwire.toml:12",
        "fanwire.toml:15",
    ]


def test_only_the_line_breaks_of_toml_count(tmp_path: Path) -> None:
    """Others can stand in a text or a comment."""
    assert _problems(tmp_path, "# a\u2028b\u0085c\nqueue = 0\n")[0].startswith("fanwire.toml:2: queue: ")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Some editors write one; in the file of authentication, too. UTF-16 is told."""
    (tmp_path / "auth.toml").write_text(AUTH, encoding="utf-8-sig")
    file = tmp_path / "fanwire.toml"
    file.write_text('queue = 7\nauth_file = "auth.toml"\n', encoding="utf-8-sig")
    settings = resolve(file, {})

    assert settings.config.queue == 7
    assert settings.origins["queue"].endswith("fanwire.toml:1")
    file.write_text("queue = 7\n", encoding="utf-16")
    with pytest.raises(BadSettings, match="save the file as UTF-8"):
        resolve(file, {})
