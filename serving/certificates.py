"""A local certificate authority, and the certificates that it signs for the server and clients.

All keys are ECDSA P-256. Only signing needs ``ca.key``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from serving.errors import ServingError
from serving.files import PRIVATE, PUBLIC, locked, read_private, replace
from serving.keys import check_name

AUTHORITY_LIFE = timedelta(days=3650)
# Apple's clients refuse certificates that are valid for longer than 398 days.
LIFE = timedelta(days=397)
# For clients whose clocks are slow.
BACKDATED = timedelta(hours=1)
DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*(?!\d+$){_LABEL}")


@dataclass(frozen=True)
class Authority:
    """A certificate authority; ``is_new`` if its files are written with its first certificate."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    is_new: bool


@dataclass(frozen=True)
class Issued:
    """A certificate, written to ``path`` and followed there by its authority's."""

    path: Path
    names: tuple[str, ...]
    expires: datetime
    authority: Authority

    @property
    def key_path(self) -> Path:
        return self.path.with_suffix(".key")


def issue_server(folder: Path, hosts: Sequence[str] = ()) -> Issued:
    """Write ``server.pem`` and ``server.key``, and ``ca.pem`` and ``ca.key`` unless they exist.

    ``hosts`` are DNS names and IP addresses. If it is empty, a renewed certificate keeps its names,
    and a new one has DEFAULT_HOSTS. Raises ServingError for an invalid name, and for existing files
    that this authority has not signed.
    """
    names = [_general_name(host) for host in dict.fromkeys(hosts)]
    path = folder / "server.pem"
    with locked(folder):
        authority = _authority(folder)
        before = _replaceable(path, authority)
        if not names and before is not None:
            names = _alternative_names(before)
        names = names or [_general_name(host) for host in DEFAULT_HOSTS]
        return _issue(authority, path, "server", ExtendedKeyUsageOID.SERVER_AUTH, names)


def issue_client(folder: Path, name: str) -> Issued:
    """Write ``client-NAME.pem`` and its key as issue_server does; the common name is ``name``."""
    path = folder / f"client-{check_name(name)}.pem"
    with locked(folder):
        authority = _authority(folder)
        _replaceable(path, authority)
        return _issue(authority, path, name, ExtendedKeyUsageOID.CLIENT_AUTH, [])


def _authority(folder: Path) -> Authority:
    """The authority of ``folder``, or a new one that is not written yet."""
    path, key_path = folder / "ca.pem", folder / "ca.key"
    if not path.exists() and not key_path.exists():
        return _new_authority(path)
    for missing, present in ((path, key_path), (key_path, path)):
        if not missing.exists():
            raise ServingError(
                f"{missing} is missing beside {present}: bring it back, or choose another --folder "
                "for a new authority, which every client must then trust"
            )
    certificate = _read_certificate(path)
    try:
        key = load_pem_private_key(read_private(key_path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ServingError(f"{key_path} is not a private key without a password") from error
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
        or not _may_sign(certificate)
    ):
        raise ServingError(
            f"{path} and {key_path} are not an ECDSA authority: choose another --folder"
        )
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise ServingError(
            f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: choose another "
            "--folder for a new authority, which every client must then trust"
        )
    return Authority(path, certificate, key, is_new=False)


def _new_authority(path: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A client that trusts several of these authorities tells them apart by name.
    name = _common_name(f"TorchServe vision bundle authority {serial:x}"[:64])
    usage = _key_usage(signs_certificates=True)
    builder = _builder(name, name, key.public_key(), serial, datetime.now(UTC) + AUTHORITY_LIFE)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(path, certificate, key, is_new=True)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _replaceable(path: Path, authority: Authority) -> x509.Certificate | None:
    """The certificate at ``path`` or None; ServingError if ``authority`` has not signed it."""
    key_path = path.with_suffix(".key")
    if not path.exists() and not key_path.exists():
        return None
    try:
        certificate = _read_certificate(path)
        certificate.verify_directly_issued_by(authority.certificate)
    except (ServingError, ValueError, TypeError, InvalidSignature) as error:
        raise ServingError(
            f"{path} and {key_path} are not from {authority.path}: move them away, or choose "
            "another --folder"
        ) from error
    return certificate


def _issue(
    authority: Authority,
    path: Path,
    name: str,
    usage: x509.ObjectIdentifier,
    names: Sequence[x509.GeneralName],
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(
            _common_name(name),
            authority.certificate.subject,
            key.public_key(),
            x509.random_serial_number(),
            min(datetime.now(UTC) + LIFE, authority.certificate.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    root = authority.certificate.public_bytes(Encoding.PEM)
    files = {}
    if authority.is_new:
        files[authority.path] = (root, PUBLIC)
        files[authority.path.with_suffix(".key")] = (_pem(authority.key), PRIVATE)
    # Write the key last: if that fails, the certificate is still known as ours, and is renewed.
    files[path] = (certificate.public_bytes(Encoding.PEM) + root, PUBLIC)
    files[path.with_suffix(".key")] = (_pem(key), PRIVATE)
    replace(files)
    hosts = tuple(str(name.value) for name in names)
    return Issued(path, hosts or (name,), certificate.not_valid_after_utc, authority)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    expires: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(datetime.now(UTC) - BACKDATED)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ServingError(f"{path} is not a certificate in PEM") from error


def _general_name(host: str) -> x509.GeneralName:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        if len(host) > 253 or not _DNS_NAME.fullmatch(host):
            raise ServingError(
                f"{host!r} is neither a DNS name nor an IP address (without a scheme or port; "
                "non-ASCII names as xn--...)"
            ) from None
        return x509.DNSName(host)
    if address.is_unspecified:
        raise ServingError(f"no client connects to {host}: give the names that clients use")
    return x509.IPAddress(address)


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(extension.value)
