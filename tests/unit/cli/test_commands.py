"""What the command line takes and refuses, without a broker."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest
import trio
from click.testing import CliRunner

import fanwire
from fanwire import __main__, commandline
from fanwire.broker import Config
from fanwire.broker.cli.options import FLAGS, SETTINGS, bytes_of
from fanwire.broker.cli.serve_help import COMMON, GROUPS
from fanwire.client import cli as client_cli
from fanwire.client.cli import running
from fanwire.client.cli.command import Command
from fanwire.commandline import COMMANDS, root, run

watch_command = importlib.import_module("fanwire.client.cli.watch")  # the package's `watch` is the module's command


def _command(name: str) -> click.Command:
    assert isinstance(root, click.Group)
    command = root.get_command(click.Context(root), name)
    assert command is not None
    return command


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command line that is refused as wrong usage."""
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    """Help has examples and the exit statuses, and the list of commands says what the command says itself."""
    shown = CliRunner().invoke(root, [name, "--help"])

    assert shown.exit_code == 0
    assert "Examples:\n    fanwire " in shown.output
    assert "Exit status:\n    0" in shown.output
    assert _command(name).short_help == COMMANDS[name].short_help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_list_of_commands(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Without a command the help is shown, with all commands in it."""
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in shown] == []


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` is the package's."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"fanwire {fanwire.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["serv"], ["no such command 'serv'", "(see fanwire --help)"]),
        (["sub", "a", "--cuont", "1"], ["no such option", "--count", "(see fanwire sub --help)"]),
        (["sub"], ["missing argument 'PATTERN...'", "(see fanwire sub --help)"]),
        (["sub", "a b"], ["pattern 'a b' has the whitespace U+0020 at position 1"]),
        (["sub", "a.>.b"], ["token 2 is '>', which may only be the last one"]),
        (["sub", "a", "--count", "0"], ["'--count'", "0 is not in the range x>=1"]),
        (["sub", "a", "--url", "http://h/"], ["'--url'", "begins with ws:// or wss://"]),
        (["watch", "a..b"], ["token 2 of 3 is empty"]),
        (["pub", "a.*", "x"], ["token 2 is '*', but '*' and '>' belong in patterns only"]),
        (["pub", "a"], ["nothing to publish: give DATA, '-' for the lines of standard input, or --file"]),
        (["pub", "a", "x", "--file", __file__], ["give DATA or --file, not both"]),
        (["pub", "a", "--file", "/nonexistent"], ["'/nonexistent' does not exist"]),
        (["pub", "a", "--json", "{"], ["DATA is not JSON: column 2: "]),
        (["pub", "a", "x", "--rate", "0"], ["'--rate'", "0"]),
        (["pub", "a", "x", "--rate", "nan"], ["'--rate'", "'nan' is not a number"]),
        (["request", "a", "x", "--timeout", "inf"], ["'--timeout'", "inf is not in the range"]),
        (["feed", "--symbols", "A.B"], ["'A.B' is no symbol"]),
        (["feed", "--symbols", "AAPL,XX"], ["no prices of XX: there are those of AAPL"]),
        (["feed", "--since", "May"], ["'May' is no date: write 2007 or 2007-01-09"]),
        (["demo", "--since", "2030"], ["no prices since 2030: they run from 2000-03-01"]),
        (["serve", "--max-pending", "3x"], ["'3x' is not a size in bytes: write 65536, 64KiB or 16MiB"]),
        (["serve", "--max-age", "soon"], ["'soon' is not a number"]),
        (["serve", "--path", "x"], ["path must begin with '/', not 'x'"]),
        (
            ["serve", "--max-pending", "0"],
            ["'0' is out of range: it must be a whole number from 1 to 1,0"],
        ),
        (["bench", "--publishers", "100", "--size", "100000"], ["take fewer publishers or a smaller --size"]),
        (["bench", "--size", "15"], ["15 is not in the range"]),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]) -> None:
    """What cannot be understood is told on one line that begins with `error:`, and the status is 2."""
    line = _refused(capsys, *arguments)

    assert line.startswith("error: ")
    assert all(part in line for part in parts), line


def test_the_environment_names_the_broker(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """FANWIRE_URL takes the place of --url, and is named where it is wrong."""
    monkeypatch.setenv("FANWIRE_URL", "ftp://h/")

    assert run(["sub", "a"]) == 78
    assert capsys.readouterr().err == (
        "error: FANWIRE_URL: a broker's URL begins with ws:// or wss://, not ftp://: 'ftp://h/'\n"
    )


@pytest.mark.parametrize("command", [["serve"], ["config", "show"]])
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("FANWIRE_PORT", "high", "'high' is not a whole number"),
        ("FANWIRE_MAX_PENDING", "3x", "'3x' is not a size in bytes: write 65536, 64KiB or 16MiB"),
        ("FANWIRE_INSECURE", "perhaps", "'perhaps' is not a valid boolean."),
        ("FANWIRE_LOG_LEVEL", "loud", "'loud' is not one of 'debug', 'info', 'warning', 'error'."),
        ("FANWIRE_PATH", "x", "path must begin with '/', not 'x'"),
    ],
)
def test_a_wrong_variable_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    command: list[str], name: str, value: str, reason: str,
) -> None:  # fmt: skip
    """By its own name and not by that of an option that nobody gave; the status says that the settings are no good."""
    monkeypatch.setenv(name, value)

    assert run(command) == 78
    line = capsys.readouterr().err
    assert line.startswith(f"error: {name}: {reason}"), line
    assert line.count("\n") == 1


def test_a_wrong_token_in_the_environment_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is connected."""
    monkeypatch.setenv("FANWIRE_TOKEN", "two words")

    assert run(["sub", "a"]) == 78
    assert capsys.readouterr().err.startswith("error: FANWIRE_TOKEN: ")


@pytest.mark.parametrize("name", ["config", "token"])
def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """As `fanwire` itself does, on standard output and with status 0."""
    assert run([name]) == 0
    out, err = capsys.readouterr()

    assert err == ""
    assert out.startswith(f"Usage: fanwire {name} ")
    assert "\nCommands:\n" in out


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        (["t", "-18.5"], "-18.5"),
        (["-18.5", "t"], "t"),
        (["t", "-.5", "--retain"], "-.5"),
        (["--json", "t", "-1e5"], "-1e5"),
        (["t", "--count", "3", "-5"], "-5"),
        (["t", "--rate=2", "-5", "-q"], "-5"),
        (["t", "--", "-x"], "-x"),
    ],
)
def test_a_number_below_zero_is_an_argument(arguments: list[str], data: str) -> None:
    """Wherever it stands among the options, and the order of the arguments is kept."""
    assert _command("pub").make_context("pub", arguments).params["data"] == data


def test_the_value_of_an_option_may_be_below_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not taken for an argument, and the option says what is wrong with it."""
    assert "'--count': -5 is not in the range" in _refused(capsys, "pub", "t", "x", "--count", "-5")
    assert "'--count' requires an argument" in _refused(capsys, "pub", "t", "-5", "--count")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["pub", "t", "x", "--url", "ws://a/", "--url", "ws://b/"], "--url is given twice"),
        (["serve", "--host", "0.0.0.0", "--host", "::"], "--host is given twice"),
        (["config", "show", "--port", "1", "--port=2"], "--port is given twice"),
        (["token", "new", "--user", "a", "--user", "b"], "--user is given twice"),
        (["bench", "--size", "20", "--size", "20"], "--size is given twice"),
        (["pub", "t", "x", "--json", "--raw"], "give --json or --raw, not both"),
    ],
)
def test_an_option_with_one_value_is_given_once(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    """The first of two is not dropped in silence."""
    assert reason in _refused(capsys, *arguments)


def test_options_with_several_values_may_be_repeated() -> None:
    """And a flag that is given again changes nothing."""
    context = _command("serve").make_context("serve", ["--rule", "a history=1", "--rule", "b history=2"])

    assert len(context.params["rules"]) == 2
    assert _command("pub").make_context("pub", ["t", "x", "-q", "--quiet"]).params["quiet"] is True


def _all_commands(group: click.Command, *names: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        yield " ".join(names), group
        return
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield from _all_commands(command, *names, name)


def test_every_command_reads_its_arguments_alike() -> None:
    """One that is made without the common class would take the last of two options again."""
    commands = dict(_all_commands(root))

    assert len(commands) >= 18
    assert [name for name, command in commands.items() if not isinstance(command, Command)] == []


def test_every_setting_of_the_broker_has_an_option() -> None:
    """A setting that is added to Config must be added to the command line, or be named here with its reason."""
    of_programs = {"listen", "server"}  # a broker without a port, and what WELCOME says
    flags = {*FLAGS, "auth", "tls"}  # a file, and a section with an option for each of its settings

    assert {setting.field for setting in SETTINGS} | of_programs | flags == {
        field.name for field in attrs.fields(Config)
    }


def test_the_defaults_are_those_of_config() -> None:
    """What `fanwire serve` takes when nothing is said is what Config takes."""
    context = _command("serve").make_context("serve", [])
    chosen = {field.name: context.params[field.name] for field in attrs.fields(Config) if field.name in context.params}

    assert Config(**chosen) == Config()


def test_none_takes_a_limit_away() -> None:
    """`none` is understood where there may be no limit."""
    context = _command("serve").make_context("serve", ["--max-age", "none", "--max-pending", "None"])

    assert (context.params["max_age_s"], context.params["max_pending_bytes"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "count"), [("65536", 65536), ("64KiB", 65536), ("16 mib", 16 * 1024**2), ("1GB", 10**9), ("5b", 5)]
)
def test_bytes(text: str, count: int) -> None:
    """Numbers of bytes may have a unit."""
    assert bytes_of(text) == count


def test_a_missing_package_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages of the extra, the command says what to install; the list of commands still works."""

    def import_module(name: str) -> None:
        raise ModuleNotFoundError("no h11", name="h11")

    monkeypatch.setattr(commandline, "import_module", import_module)

    assert run(["serve"]) == 1
    assert capsys.readouterr().err == "error: `fanwire serve` needs the package 'h11': pip install 'fanwire[all]'\n"
    assert run(["--help"]) == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_a_package_that_is_missed_late_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    """Some are needed only on a terminal, before or while the command runs; no traceback for them either."""
    missing = ModuleNotFoundError("no rich", name="rich")

    def display_for(*_args: object, **_options: object) -> None:
        raise ExceptionGroup("", [missing]) if grouped else missing

    async def main() -> int:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("", [missing])

    if grouped:
        with pytest.raises(click.ClickException, match=r"^this command needs the package 'rich': pip install 'fanw"):
            running.run(main)
        return
    monkeypatch.setattr(watch_command, "display_for", display_for)

    assert run(["watch", "a"]) == 1
    assert capsys.readouterr().err == "error: `fanwire watch` needs the package 'rich': pip install 'fanwire[all]'\n"


@pytest.mark.parametrize("what", ["fanwire.broker", "fanwire.testing", "fanwire.broker.cli.serve"])
def test_a_module_without_its_extra_says_what_to_install(what: str, tmp_path: Path) -> None:
    """The same sentence as everywhere, whichever module is imported first."""
    program = f"import sys; sys.modules['h11'] = None; import {what}"
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert ended.stderr.splitlines()[-1] == (
        "fanwire.extras.MissingExtra: fanwire.broker needs the package 'h11': pip install 'fanwire[broker]'"
    )


def test_without_click_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `cli` the program says what to install, and shows no traceback."""
    monkeypatch.setitem(sys.modules, "fanwire.commandline", None)
    monkeypatch.delattr(fanwire, "commandline", raising=False)

    class _NoClick:
        """Stands in the way of click, as an environment without it would."""

        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "fanwire.commandline":
                raise ModuleNotFoundError("No module named 'click'", name="click")

    monkeypatch.delitem(sys.modules, "fanwire.commandline")
    monkeypatch.setattr(sys, "meta_path", [_NoClick(), *sys.meta_path])

    with pytest.raises(SystemExit, match=r"^error: .*pip install 'fanwire\[all\]'$"):
        __main__.main()


def test_importing_serve_needs_no_rich(tmp_path: Path) -> None:
    """`fanwire serve --help` works where rich is not installed."""
    program = "import sys; sys.modules['rich'] = None; from fanwire.commandline import run; run(['serve', '--help'])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert ended.stderr == ""
    assert "Run a broker" in ended.stdout


def test_every_command_that_connects_brings_its_token() -> None:
    """None forgets FANWIRE_TOKEN."""
    folder = Path(client_cli.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("**/*.py")]
    calls = [call for text in texts for call in re.findall(r"(?<!def )\bconnect\((?:self\._plan\.)?url[^)]*\)?", text)]

    assert len(calls) >= 9
    assert [call for call in calls if "token=" not in call] == []


@pytest.mark.parametrize("command", [["sub"], ["watch"], ["presence"]])
def test_wildcards_of_other_systems_are_told(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """On one line, and the pattern is taken: it is a valid one."""
    context = _command(command[0]).make_context(command[0], ["stocks/#"])
    line = capsys.readouterr().err

    assert "stocks/#" in str(context.params)
    assert line.startswith("warning: pattern 'stocks/#' looks like one of MQTT or AMQP")
    assert line.count("\n") == 1


def test_a_check_tells_wildcards_of_other_systems(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In rules and in roles, with file and line; the file is good."""
    file = tmp_path / "f.toml"
    file.write_text(
        '[[rules]]\npattern = "a.>"\nhistory = 5\n[[rules]]\npattern = "stocks/#"\nhistory = 5\n'
        '[auth]\nanonymous_roles = ["r"]\n[[auth.roles]]\nname = "r"\npublish = ["a.+.b"]\n',
        encoding="utf-8",
    )

    assert run(["config", "check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file} is good\n"
    assert [line.partition(": pattern")[0] for line in err.splitlines()] == [
        f"warning: {file}:4: rules[1]",
        f"warning: {file}:7: auth.roles[0].publish",
    ]


def _serve_help(capsys: pytest.CaptureFixture[str], option: str) -> list[str]:
    """The words of the help of `fanwire serve`."""
    assert run(["serve", option]) == 0
    return capsys.readouterr().out.split()


def test_the_help_of_serve_fits_a_screen_or_two(capsys: pytest.CaptureFixture[str]) -> None:
    """The dozen that matter first, each of them an option, and the way to the others."""
    names = {param.name: max(param.opts, key=len) for param in _command("serve").params}
    words = _serve_help(capsys, "--help")

    assert len(COMMON) == 12
    assert [names[name] for name in COMMON if names[name] not in words] == []
    assert "--help-all" in words
    assert "--conflating-buffer" not in words


def test_all_options_of_serve_are_shown_once_and_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    """With what holds where they are not given."""
    options = [param for param in _command("serve").params if isinstance(param, click.Option)]
    grouped = [name for names in GROUPS.values() for name in names]
    words = _serve_help(capsys, "--help-all")
    listed = [max(option.opts, key=len) for option in options]
    valued = [option for option in options if not option.is_flag]

    assert len(set(grouped)) == len(grouped)
    assert {option.name for option in options} - {"help_all"} == set(grouped)
    assert [name for name in listed if name not in words] == []
    assert words.count("[default:") == len(valued)


def test_what_none_means_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Of every option that takes it, and of no other; and none where an option has that default is taken."""
    text = " ".join(_serve_help(capsys, "--help-all"))
    rows = [setting for setting in SETTINGS if setting.may_be_none]

    assert text.count("('none': ") == len(rows)
    for setting in SETTINGS:
        if not setting.multiple:
            default = _command("serve").make_context("serve", []).params[setting.field]
            if default in (None, ()):
                given = [setting.option, "none"]
                assert _command("serve").make_context("serve", given).params[setting.field] == default


def test_every_command_has_examples_and_exit_statuses() -> None:
    """Those of groups, too: in the command's own help, or in that of its group."""
    commands = dict(_all_commands(root))
    helps = {name: f"{command.help}" for name, command in commands.items() if not command.hidden}

    assert [name for name, text in helps.items() if "Example" not in text] == []
    assert [name for name, text in helps.items() if "Exit status" not in text] == []
