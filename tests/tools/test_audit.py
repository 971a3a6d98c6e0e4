"""`make audit`: which vulnerabilities fail it, and what an exemption needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import audit
from tools.audit import AuditError, Exemption, Finding

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 6, 1)
# What pip-audit 2.10.1 printed for these four versions.
REPORT = """\
{"dependencies": [{"name": "pillow", "version": "10.0.0", "vulns": [{"id": "PYSEC-2023-175", \
"fix_versions": ["10.0.1"], "aliases": []}]}, {"name": "requests", "version": "2.19.0", "vulns": \
[{"id": "PYSEC-2018-28", "fix_versions": ["2.20.0"], "aliases": ["CVE-2018-18074", \
"GHSA-x84v-xcm2-53pg"]}, {"id": "PYSEC-2023-74", "fix_versions": ["2.31.0"], "aliases": \
["CVE-2023-32681", "GHSA-j8r2-6x86-q33q"]}]}, {"name": "torch", "version": "1.13.0", "vulns": \
[{"id": "PYSEC-2022-43015", "fix_versions": ["1.13.1"], "aliases": ["CVE-2022-45907"]}]}, {"name": \
"torchserve", "version": "0.12.0", "vulns": []}], "fixes": []}"""
PACKAGES = ("pillow", "requests", "torch", "torchserve")
# And with status 0, "No known vulnerabilities found", when its service answered 404.
SKIPPED = """\
{"dependencies": [{"name": "requests", "skip_reason": "Dependency not found on PyPI and could not \
be audited: requests (2.19.0)"}], "fixes": []}"""

TORCH = Finding("torch", "1.13.0", ("PYSEC-2022-43015", "CVE-2022-45907"), ("1.13.1",))
ENTRY = """\
[[accepted]]
id = "CVE-2022-45907"
package = "torch"
reason = "parse_type_line is never called"
until = 2026-06-01
"""
ACCEPTED = Exemption("CVE-2022-45907", "torch", "parse_type_line is never called", TODAY)


def test_findings_of_a_report() -> None:
    findings = audit.read_report(REPORT, PACKAGES)
    assert [finding.package for finding in findings] == ["pillow", "requests", "requests", "torch"]
    assert findings[3] == TORCH
    assert str(TORCH) == "torch 1.13.0: PYSEC-2022-43015, CVE-2022-45907; fixed in 1.13.1"


def test_a_package_that_was_skipped_is_not_clean() -> None:
    with pytest.raises(AuditError, match="not looked up requests"):
        audit.read_report(SKIPPED, ["requests"])
    with pytest.raises(AuditError, match="not looked up numpy"):
        audit.read_report(REPORT, [*PACKAGES, "numpy"])


def test_an_exemption_holds_through_its_last_day() -> None:
    assert audit.read_exemptions(ENTRY, TODAY) == (ACCEPTED,)
    with pytest.raises(AuditError, match="'CVE-2022-45907' of 'torch' has expired on 2026-06-01"):
        audit.read_exemptions(ENTRY, date(2026, 6, 2))


@pytest.mark.parametrize(
    ("line", "replacement", "message"),
    [
        ('reason = "parse_type_line is never called"', "", "reason"),
        ('reason = "parse_type_line is never called"', 'reason = " "', "a reason"),
        ("until = 2026-06-01", "", "until"),
        ("until = 2026-06-01", 'until = "2026-06-01"', "a date"),
        ("until = 2026-06-01", "until = 2026-06-01T00:00:00Z", "a date"),
        ('package = "torch"', 'package = "torch"\nseverity = "low"', "severity"),
        ("[[accepted]]", "[[acepted]]", "acepted"),
        ("[[accepted]]", "[[accepted", "audit.toml"),
    ],
)
def test_an_incomplete_exemption_fails(line: str, replacement: str, message: str) -> None:
    assert line in ENTRY
    with pytest.raises(AuditError, match=message):
        audit.read_exemptions(ENTRY.replace(line, replacement), TODAY)


def test_an_exemption_covers_one_vulnerability_of_one_package() -> None:
    assert audit.judge([TORCH], [ACCEPTED]) == []
    assert audit.judge([TORCH], []) == [str(TORCH)]
    other = Exemption("CVE-2022-45907", "torchvision", "another package", TODAY)
    assert audit.judge([TORCH], [ACCEPTED, other]) == [
        "audit.toml: CVE-2022-45907 of torchvision is no longer found: remove it"
    ]
    assert len(audit.judge([TORCH], [other])) == 2


def test_the_exemptions_of_this_project_are_complete() -> None:
    audit.read_exemptions((ROOT / "audit.toml").read_text(), date.min)


class Service:
    """A service like OSV's, on loopback, that knows the vulnerabilities of some versions."""

    def __init__(self) -> None:
        self.known = {("jinja2", "2.4.1"): "PYSEC-2014-8"}
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    def answer(self, query: dict[str, object]) -> dict[str, object]:
        package = query["package"]
        assert isinstance(package, dict)
        asked = (str(package["name"]), str(query["version"]))
        self.asked.append(asked)
        if asked not in self.known:
            return {}
        affected = {"package": {"name": asked[0], "ecosystem": "PyPI"}}
        return {"vulns": [{"id": self.known[asked], "affected": [affected]}]}


@pytest.fixture
def service() -> Iterator[Service]:
    known = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(known.answer(query)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.url = f"http://127.0.0.1:{server.server_port}/v1/query"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield known
        server.shutdown()
        thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text(
        "networkx==3.6.1 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "networkx==3.7 ; python_full_version >= '3.12' \\\n    --hash=sha256:01\n"
        "pywin32==311 ; sys_platform == 'win32' \\\n    --hash=sha256:02\n"
        "torch==1.13.0 \\\n    --hash=sha256:03\n    # via torchvision\n"
    )
    (tmp_path / "audit.toml").write_text("")
    return path


def run(lock: Path, service: str, *arguments: str) -> int:
    exemptions = str(lock.with_name("audit.toml"))
    options = ["--lock", str(lock), "--exemptions", exemptions, "--service", service]
    return audit.main([*options, *arguments])


def test_every_pinned_version_is_looked_up(lock: Path, service: Service) -> None:
    assert run(lock, service.url) == 0
    assert sorted(service.asked[1:]) == [
        ("networkx", "3.6.1"), ("networkx", "3.7"), ("pywin32", "311"), ("torch", "1.13.0"),
    ]  # fmt: skip


def test_a_vulnerability_fails_until_it_is_accepted(
    lock: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.known["networkx", "3.7"] = "PYSEC-2026-1"
    assert run(lock, service.url, "--allow-offline") == 1
    assert "error: networkx 3.7: PYSEC-2026-1" in capsys.readouterr().err
    entry = ENTRY.replace("CVE-2022-45907", "PYSEC-2026-1").replace('"torch"', '"networkx"')
    lock.with_name("audit.toml").write_text(entry.replace("2026-06-01", "9999-12-31"))
    assert run(lock, service.url) == 0
    assert "1 accepted" in capsys.readouterr().out


def test_no_service_fails_unless_that_is_allowed_and_is_always_said(
    lock: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_listens = "http://127.0.0.1:9/v1/query"
    assert run(lock, nothing_listens) == 1
    assert "THE AUDIT DID NOT RUN" in capsys.readouterr().err
    assert run(lock, nothing_listens, "--allow-offline") == 0
    assert "THE AUDIT DID NOT RUN" in capsys.readouterr().err
    service.known.clear()  # it answers, but knows nothing
    assert run(lock, service.url) == 1
    assert "THE AUDIT DID NOT RUN" in capsys.readouterr().err


def test_an_expired_exemption_fails_without_a_service_too(lock: Path) -> None:
    lock.with_name("audit.toml").write_text(ENTRY.replace("2026-06-01", "2020-01-01"))
    assert run(lock, "http://127.0.0.1:9/v1/query", "--allow-offline") == 1


def test_a_failure_of_pip_audit_is_no_clean_result(
    lock: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_text("torch==not-a-version\n")
    assert run(lock, service.url, "--allow-offline") == 1
    assert "pip-audit has failed" in capsys.readouterr().err
    lock.write_text("")
    assert run(lock, service.url, "--allow-offline") == 1
