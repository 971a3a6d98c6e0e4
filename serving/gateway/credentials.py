"""Reads the files of API keys and certificates that the configuration names."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from serving.config import Config
from serving.errors import ServingError
from serving.keys import Client, read_keys


@dataclass(frozen=True)
class Credentials:
    """Paths, or None for what is not configured. ``certificate`` is the chain and its key."""

    keys: Path | None
    certificate: tuple[Path, Path] | None
    client_authority: Path | None

    @classmethod
    def of(cls, config: Config) -> Credentials:
        """The paths in ``config``. Raises ServingError if one is missing beside another."""
        certificate, key = config.file("tls_certificate"), config.file("tls_key")
        authority = config.file("tls_client_ca")
        if (certificate is None) != (key is None):
            raise ServingError(f"{config.path} needs both tls_certificate and tls_key, or neither")
        if authority is not None and certificate is None:
            raise ServingError(f"tls_client_ca in {config.path} needs tls_certificate and tls_key")
        pair = (certificate, key) if certificate and key else None
        return cls(config.file("api_keys"), pair, authority)

    @property
    def knows_clients(self) -> bool:
        """Whether a client needs an API key or a certificate."""
        return self.keys is not None or self.client_authority is not None

    def changed_at(self) -> tuple[int, ...]:
        """Time, size and inode of each file; differs once a file has changed. Never raises."""
        stamps: list[int] = []
        for path in (self.keys, *(self.certificate or ()), self.client_authority):
            try:
                status = path.stat() if path else None
            except OSError:
                status = None
            stamps += [status.st_mtime_ns, status.st_size, status.st_ino] if status else [0]
        return tuple(stamps)

    def expiries(self) -> dict[tuple[str, str], datetime]:
        """When each certificate file, and each API key with a last day, expires: by kind and name.

        The kinds are ``certificate`` (``server`` and ``client_ca``) and ``key`` (clients' names).
        Raises ServingError.
        """
        found: dict[tuple[str, str], datetime] = {}
        chain, authority = self.server_certificate(), self.authority()
        for name, pem in (("server", chain and chain[0]), ("client_ca", authority)):
            if pem:
                certificates = x509.load_pem_x509_certificates(pem.encode())
                found["certificate", name] = min(c.not_valid_after_utc for c in certificates)
        for client in read_keys(self.keys) if self.keys else ():
            if client.expires:
                found["key", client.name] = client.expires
        return found

    def clients(self) -> tuple[Client, ...] | None:
        """The clients with a valid API key, or None if no key is required. Raises ServingError."""
        if self.keys is None:
            return None
        return tuple(client for client in read_keys(self.keys) if client.is_valid)

    def server_certificate(self) -> tuple[str, str] | None:
        """The certificate chain and its private key in PEM, or None without TLS.

        Raises ServingError if they cannot be read or do not match.
        """
        if self.certificate is None:
            return None
        chain, key = self.certificate
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key)
            return chain.read_text(), key.read_text()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ServingError(
                f"{chain} and {key} cannot be used: {error}; `make cert` makes a pair"
            ) from error

    def authority(self) -> str | None:
        """The authority of client certificates in PEM, or None if clients need none.

        Raises ServingError if it cannot be read.
        """
        if self.client_authority is None:
            return None
        try:
            ssl.create_default_context(cafile=str(self.client_authority))
            return self.client_authority.read_text()
        except (OSError, ValueError) as error:
            raise ServingError(f"{self.client_authority} cannot be used: {error}") from error
