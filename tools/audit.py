"""Finds known vulnerabilities of the packages that serving installs: requirements-ray.lock has all.

``python -m tools.audit`` (`make audit`) looks up every pinned version in OSV with pip-audit,
whatever its environment marker. The audit fails for a vulnerability that audit.toml does not
accept, and for an entry there that has expired, has no reason, or names a vulnerability that is no
longer found. For libraries inside a wheel (TorchServe's Java, Pillow's C) it finds only advisories
that name the wheel.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import requests

ROOT = Path(__file__).parents[1]
SERVICE = "https://api.osv.dev/v1/query"
TIMEOUT_S = 20
# Its vulnerabilities have been known since 2014: a service that lacks them cannot be trusted.
VULNERABLE = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}


class AuditError(Exception):
    """The audit has failed; the message says why."""


class Unreachable(AuditError):
    """The vulnerability service does not answer, so nothing was audited."""


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a pinned package, with all of its ids (PYSEC, GHSA, CVE)."""

    package: str
    version: str
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        fix = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fix is known"
        return f"{self.package} {self.version}: {', '.join(self.ids)}; {fix}"


@dataclass(frozen=True)
class Exemption:
    """A vulnerability that is accepted through the day ``until``."""

    id: str
    package: str
    reason: str
    until: date

    def covers(self, finding: Finding) -> bool:
        return self.id in finding.ids and self.package == finding.package


def read_exemptions(text: str, today: date) -> tuple[Exemption, ...]:
    """The entries of an audit.toml. AuditError if one is malformed, expired or has no reason."""
    try:
        tables = tomllib.loads(text)
        exemptions = tuple(Exemption(**entry) for entry in tables.pop("accepted", ()))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise AuditError(
            f"audit.toml: {error}; an entry has id, package, reason and until"
        ) from error
    if tables:
        raise AuditError(f"audit.toml: unknown: {', '.join(tables)}")
    for exemption in exemptions:
        name = f"audit.toml: {exemption.id!r} of {exemption.package!r}"
        words = (exemption.id, exemption.package, exemption.reason)
        if not all(isinstance(word, str) and word.strip() for word in words):
            raise AuditError(f"{name} needs an id, a package and a reason, as text")
        if type(exemption.until) is not date:
            raise AuditError(f"{name} needs `until`, a date like 2027-01-31")
        if exemption.until < today:
            raise AuditError(f"{name} has expired on {exemption.until}: decide again")
    return exemptions


def judge(findings: Sequence[Finding], exemptions: Sequence[Exemption]) -> list[str]:
    """What makes the audit fail: findings without an exemption, exemptions without a finding."""
    return [
        *(str(finding) for finding in findings if not any(e.covers(finding) for e in exemptions)),
        *(
            f"audit.toml: {exemption.id} of {exemption.package} is no longer found: remove it"
            for exemption in exemptions
            if not any(exemption.covers(finding) for finding in findings)
        ),
    ]


def audit(lock: str, service: str) -> tuple[Finding, ...]:
    """The known vulnerabilities of every package in ``lock``. Raises Unreachable or AuditError."""
    rounds = _rounds(lock)
    if not rounds:
        raise AuditError("the lock pins no package")
    _require(service)
    return tuple(finding for pins in rounds for finding in _look_up(pins, service))


def _require(service: str) -> None:
    try:
        answer = requests.post(service, json=VULNERABLE, timeout=TIMEOUT_S)
        answer.raise_for_status()
        known = answer.json().get("vulns")
    except requests.RequestException as error:
        raise Unreachable(f"{service} does not answer: {error}") from error
    if not known:
        raise Unreachable(f"{service} knows no vulnerability of {VULNERABLE}")


def _rounds(lock: str) -> list[dict[str, str]]:
    """Split the lock into maps from package to version.

    pip-audit takes one version of a package; a lock may have one for each environment marker.
    """
    rounds: list[dict[str, str]] = []
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE):
        free = next((pins for pins in rounds if name not in pins), None)
        if free is None:
            rounds.append(free := {})
        free[name] = version
    return rounds


def _look_up(pins: dict[str, str], service: str) -> Iterator[Finding]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in pins.items())
        file.flush()
        command = [
            sys.executable, "-m", "pip_audit", "--requirement", file.name, "--no-deps",
            "--disable-pip", "--vulnerability-service", "osv", "--osv-url", service,
            "--timeout", str(TIMEOUT_S), "--progress-spinner", "off",
            "--format", "json", "--aliases", "on", "--desc", "off",
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    # Status 1 means vulnerabilities or a failure; after a failure there is no JSON.
    try:
        return iter(read_report(run.stdout, pins))
    except ValueError as error:
        raise AuditError(f"pip-audit has failed: {run.stderr}") from error


def read_report(report: str, packages: Iterable[str]) -> list[Finding]:
    """The findings of pip-audit's JSON.

    ValueError if it is not JSON. AuditError if one of ``packages`` was not looked up, because
    pip-audit only warns of packages that it skips.
    """
    entries = json.loads(report)["dependencies"]
    skipped = set(packages) - {entry["name"] for entry in entries if "vulns" in entry}
    if skipped:
        raise AuditError(f"pip-audit has not looked up {', '.join(sorted(skipped))}")
    return [
        Finding(
            entry["name"],
            entry["version"],
            (found["id"], *sorted(found["aliases"])),
            tuple(found["fix_versions"]),
        )
        for entry in entries
        for found in entry["vulns"]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=__doc__)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements-ray.lock", metavar="FILE")
    parser.add_argument("--exemptions", type=Path, default=ROOT / "audit.toml", metavar="FILE")
    parser.add_argument("--service", default=SERVICE, metavar="URL", help="an API like OSV's")
    parser.add_argument(
        "--allow-offline", action="store_true",
        help="warn, with status 0, if the service cannot be reached",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        exemptions = read_exemptions(options.exemptions.read_text(), datetime.now(UTC).date())
        lock = options.lock.read_text()
        problems = judge(audit(lock, options.service), exemptions)
    except Unreachable as error:
        line = "*" * 78
        print(f"{line}\nTHE AUDIT DID NOT RUN: {error}\n{line}", file=sys.stderr, flush=True)
        return 0 if options.allow_offline else 1
    except AuditError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"no known vulnerability in {options.lock.name}; {len(exemptions)} accepted")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
