"""`make cert`: what TLS clients and servers make of the files, and which files are kept."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving import certificates
from serving.certificates import issue_client, issue_server
from serving.errors import ServingError

HOSTS = ("localhost", "127.0.0.1", "::1", "vision.example.org", "*.wild.example.org")
TIMEOUT_S = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    issue_server(folder, HOSTS)
    return folder


def server_context(folder: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    return context


def common_name(der: bytes) -> str:
    subject = x509.load_der_x509_certificate(der).subject
    (name,) = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def connect(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """The common name that the server sees; ssl.SSLError if one side refuses the other."""
    errors: list[Exception] = []
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                der = connection.getpeercert(binary_form=True)
                connection.sendall((common_name(der) if der else "nobody").encode())
        except OSError as error:
            errors.append(error)
            theirs.close()

    ours.settimeout(TIMEOUT_S)
    theirs.settimeout(TIMEOUT_S)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as connection:
            return connection.recv(100).decode()
    except ConnectionError:
        pass  # the server's error says why
    finally:
        ours.close()
        thread.join(TIMEOUT_S)
    raise errors[0]


@pytest.mark.parametrize("host", [*HOSTS[:-1], "a.wild.example.org"])
def test_a_client_that_trusts_the_authority_connects(folder: Path, host: str) -> None:
    assert connect(server_context(folder), client_context(folder / "ca.pem"), host) == "nobody"


def test_no_other_client_and_no_other_name_is_accepted(folder: Path, tmp_path: Path) -> None:
    other = issue_server(tmp_path / "other", HOSTS).authority.path
    for ca in (None, other):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"issuer|self-signed"):
            connect(server_context(folder), client_context(ca), "localhost")
    for host in ("example.org", "127.0.0.2", "wild.example.org"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
            connect(server_context(folder), client_context(folder / "ca.pem"), host)


def test_a_client_certificate_names_the_client(folder: Path) -> None:
    issued = issue_client(folder, "alice.b")
    server = server_context(folder, client_ca=folder / "ca.pem")
    client = client_context(folder / "ca.pem")
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|did not return a cert"):
        connect(server, client, "localhost")
    client.load_cert_chain(issued.path, issued.key_path)
    assert connect(server, client, "localhost") == "alice.b"


def test_a_server_and_a_client_cannot_swap_certificates(folder: Path) -> None:
    client = client_context(folder / "ca.pem")
    client.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = server_context(folder, client_ca=folder / "ca.pem")
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.certificate|verify failed"):
        connect(server, client, "localhost")
    issued = issue_client(folder, "localhost")
    impostor = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    impostor.load_cert_chain(issued.path, issued.key_path)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)purpose"):
        connect(impostor, client_context(folder / "ca.pem"), "localhost")


def test_validity_and_keys(folder: Path) -> None:
    server, authority = x509.load_pem_x509_certificates((folder / "server.pem").read_bytes())
    assert authority == x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    now = datetime.now(UTC)
    assert server.not_valid_before_utc < now - timedelta(minutes=59)
    assert server.not_valid_after_utc - server.not_valid_before_utc < timedelta(days=398)
    assert server.not_valid_after_utc > now + timedelta(days=396)
    assert authority.not_valid_after_utc > now + timedelta(days=3649)
    for certificate in (server, authority):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"


def test_keys_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        issue_server(tmp_path)
        issue_client(tmp_path, "alice")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {
        "ca.pem": 0o644, "server.pem": 0o644, "client-alice.pem": 0o644,
        "ca.key": 0o600, "server.key": 0o600, "client-alice.key": 0o600,
    }  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_renewal_keeps_the_authority_and_the_names(folder: Path) -> None:
    before = contents(folder)
    client = client_context(folder / "ca.pem")
    issued = issue_server(folder)
    after = contents(folder)
    assert not issued.authority.is_new
    assert issued.names == HOSTS
    assert {name for name in after if after[name] != before[name]} == {"server.pem", "server.key"}
    assert connect(server_context(folder), client, "vision.example.org") == "nobody"
    assert issue_server(folder, ["example.org"]).names == ("example.org",)


def test_a_new_certificate_without_hosts_is_for_this_machine(tmp_path: Path) -> None:
    assert issue_server(tmp_path).names == certificates.DEFAULT_HOSTS


def test_a_certificate_does_not_outlive_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "AUTHORITY_LIFE", timedelta(days=3))
    issued = issue_server(tmp_path)
    assert issued.expires == issued.authority.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    "host",
    ["http://localhost", "localhost:8080", "", "a b", "-a.org", "300.1.1.1", "bücher.de",
     "a..b", "0.0.0.0", "::", f"{'a' * 64}.org", "*", "x.*.org"],
)  # fmt: skip
def test_what_is_no_host_is_refused_before_anything_is_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(ServingError, match=r"neither a DNS name|no client connects"):
        issue_server(tmp_path / "tls", ["localhost", host])
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-", ".", "a b", "a" * 65])
def test_what_is_no_client_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServingError, match="not a client's name"):
        issue_client(tmp_path / "tls", name)
    assert not (tmp_path / "tls").exists()


def foreign_certificate(folder: Path) -> None:
    other = folder.parent / "other"
    issue_server(other)
    for name in ("server.pem", "server.key"):
        (folder / name).write_bytes((other / name).read_bytes())


def foreign_key(folder: Path) -> None:
    other = folder.parent / "other"
    issue_server(other)
    (folder / "ca.key").write_bytes((other / "ca.key").read_bytes())


def leaf_as_authority(folder: Path) -> None:
    (folder / "ca.pem").write_bytes((folder / "server.pem").read_bytes())
    (folder / "ca.key").write_bytes((folder / "server.key").read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (foreign_certificate, "not from"),
        (foreign_key, "not an ECDSA authority"),
        (leaf_as_authority, "not an ECDSA authority"),
        (lambda folder: (folder / "ca.key").unlink(), "ca.key is missing beside"),
        (lambda folder: (folder / "ca.pem").unlink(), "ca.pem is missing beside"),
        (lambda folder: (folder / "ca.pem").write_text("?"), "not a certificate"),
        (lambda folder: (folder / "ca.key").write_text("?"), "not a private key"),
        (lambda folder: (folder / "ca.key").chmod(0o640), "open to other users .mode 0640."),
        (lambda folder: (folder / "server.pem").unlink(), "not from"),
        (lambda folder: (folder / "server.pem").write_text("?"), "not from"),
    ],
)
def test_files_of_someone_else_are_kept(folder: Path, change: object, message: str) -> None:
    assert callable(change)
    change(folder)
    before = contents(folder)
    with pytest.raises(ServingError, match=message):
        issue_server(folder)
    assert contents(folder) == before


def test_an_expired_authority_signs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "AUTHORITY_LIFE", timedelta(minutes=-1))
    issue_server(tmp_path)
    with pytest.raises(ServingError, match="expired on"):
        issue_server(tmp_path)


def test_a_write_that_fails_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def full(_: int) -> None:
        if len(list(folder.iterdir())) == len(before) + 2:  # at the second temporary file
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServingError, match=r"cannot write .*server\.key: No space left"):
        issue_server(folder)
    assert contents(folder) == before


def test_a_certificate_whose_key_was_not_renamed_is_renewed(folder: Path) -> None:
    """The state after a crash between both renames."""
    (folder / "server.key").write_bytes((folder / "ca.key").read_bytes())
    issue_server(folder)
    assert connect(server_context(folder), client_context(folder / "ca.pem"), "localhost")


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", "cert", "--folder", str(tmp_path / "tls")]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    done = run("--hosts", "localhost, 10.0.0.1")
    assert done.returncode == 0, done.stderr
    expires = f"{datetime.now(UTC) + certificates.LIFE:%Y-%m-%d}"
    assert f"server.pem, expires {expires}" in done.stdout
    assert "localhost, 10.0.0.1" in done.stdout
    assert f"tls_certificate={tmp_path / 'tls' / 'server.pem'}" in done.stdout
    done = run("--client", "alice")
    assert done.returncode == 0, done.stderr
    assert f"tls_client_ca={tmp_path / 'tls' / 'ca.pem'}" in done.stdout
    done = run("--hosts", "http://localhost")
    assert done.returncode == 1
    assert done.stderr.startswith("error: 'http://localhost'")
