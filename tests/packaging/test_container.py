"""The Dockerfile, as far as that goes without a Docker daemon: its lines, what it copies, and the commands it runs."""

from __future__ import annotations

import fnmatch
import http.server
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import fanwire

from .tree import ROOT, TO_BUILD

Line = tuple[str, str]


def _lines() -> list[Line]:
    """Instructions with their arguments, comments left out, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name:
            found.append((name, rest.strip()))
    return found


def _stages() -> list[list[Line]]:
    stages: list[list[Line]] = []
    for line in _lines():
        if line[0] == "FROM":
            stages.append([])
        stages[-1].append(line)
    return stages


def _copied(stage: list[Line]) -> list[str]:
    """Sources out of the work tree."""
    return [
        source
        for name, rest in stage
        if name == "COPY" and not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    ]


def test_every_instruction_is_one() -> None:
    """And the images have a plain name with a version: no registry, nothing that changes under us without a word."""
    known = {
        "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD",
    }  # fmt: skip

    assert {name for name, _ in _lines()} <= known
    images = [rest.split()[0] for name, rest in _lines() if name == "FROM"]
    assert len(set(images)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim", images[0])


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    """All that a build needs, and of the rest nothing."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    copied = [source for stage in _stages() for source in _copied(stage)]

    assert "*" in ignored
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / source).exists() for source in copied)
    assert set(TO_BUILD) <= set(_copied(_stages()[0]))
    assert not any(fnmatch.fnmatch(".git", pattern) for pattern in let_in)


def test_the_image_is_not_roots_and_ends_as_the_broker_does() -> None:
    """A numeric user after the last command, SIGTERM drains, the health is asked for, and the broker is the process."""
    last = _stages()[-1]
    values = {name: rest for name, rest in last if name not in ("COPY", "ENV")}

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values["USER"])
    assert not any(name == "RUN" for name, _ in last)
    assert values["STOPSIGNAL"] == "SIGTERM"
    assert values["EXPOSE"] == "9473"
    assert json.loads(values["ENTRYPOINT"]) == ["/opt/fanwire/bin/fanwire"]
    assert json.loads(values["CMD"]) == ["serve"]
    check = json.loads(values["HEALTHCHECK"].partition(" CMD ")[2])
    assert ("COPY", f"deploy/healthcheck.py {check[1]}") in last


def test_the_commands_of_the_build_make_a_program(tmp_path: Path) -> None:
    """On a copy of what the image gets, with a folder in the place of /opt: in the end there is `fanwire serve`."""
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    build = _stages()[0]
    for name in _copied(build):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    for name, command in build:
        if name == "RUN":
            ours = command.replace("/opt/fanwire", str(target)).replace("python3", sys.executable, 1)
            subprocess.run(["/bin/sh", "-c", ours], cwd=source, check=True, timeout=300)

    program = [str(target / "bin" / "fanwire"), "--version"]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert ended.stdout == f"fanwire {fanwire.__version__}\n"


# ------------------------------------------------------------- healthcheck.py


@pytest.fixture(scope="module")
def healthcheck() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("healthcheck", ROOT / "deploy" / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _answering(status: int) -> Iterator[int]:
    """A server on this machine, whose only answer is that; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (204, 1), (404, 1), (503, 1)])
def test_the_health_is_what_the_broker_says(status: int, expected: int, healthcheck: ModuleType) -> None:
    """On the port that the broker's own variable says."""
    with _answering(status) as port:
        assert healthcheck.main({"FANWIRE_PORT": f"{port}", "http_proxy": "http://127.0.0.1:1"}) == expected


def test_where_nobody_listens_it_is_ill(healthcheck: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says why."""
    with _answering(200) as port:
        pass

    assert healthcheck.main({"FANWIRE_PORT": f"{port}"}) == 1
    assert "/healthz: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:9473/healthz"),
        ({"FANWIRE_PORT": "80"}, "http://127.0.0.1:80/healthz"),
        ({"FANWIRE_TLS_CERT": "/etc/fanwire/cert.pem"}, "https://127.0.0.1:9473/healthz"),
        ({"HEALTHCHECK_URL": "http://127.0.0.1:1/healthz"}, "http://127.0.0.1:1/healthz"),
    ],
)
def test_what_is_asked_for(environment: dict[str, str], url: str, healthcheck: ModuleType) -> None:
    """By the variables of the container."""
    assert healthcheck.url_of(environment) == url


def test_it_runs_as_a_program() -> None:
    """As HEALTHCHECK calls it."""
    with _answering(200) as port:
        ended = subprocess.run(
            [sys.executable, ROOT / "deploy" / "healthcheck.py"],
            env={**os.environ, "FANWIRE_PORT": f"{port}"},
            timeout=60,
            check=False,
        )

    assert ended.returncode == 0
