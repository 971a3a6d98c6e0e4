"""Ports and disk space, checked before the start: TorchServe would fail late or quietly."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import tempfile
from collections.abc import Collection
from pathlib import Path

from serving.archives import Archive
from serving.config import Config
from serving.errors import ServingError
from serving.gateway.credentials import Credentials
from serving.runfolder import RunFolder

# For logs, the effective configuration and TorchServe's own files.
SPARE_BYTES = 64 * 2**20


def check_exposure(config: Config, credentials: Credentials, *, gateway: bool) -> str:
    """A warning about what the configuration opens to the network, or an empty string.

    ServingError if predictions are open to everybody without ``open_to_network=true``.
    """
    hosts = [config.addresses[name][0] for name in ("inference_address", "grpc_inference_port")]
    if all(map(_is_loopback, hosts)):
        return ""
    if not gateway or not (credentials.keys or credentials.certificate):
        if config.values.get("open_to_network") == "true":
            return "everybody who reaches this machine can send requests (open_to_network=true)"
        raise ServingError(
            f"{config.path} opens predictions to the network ({', '.join(hosts)}) without keys or "
            "TLS: set api_keys (`make key NAME=...`) and tls_certificate with tls_key (`make "
            "cert`) there, or open_to_network=true if another program keeps strangers out; "
            "GATEWAY=0 can have neither"
        )
    if not credentials.certificate:
        return "keys and pictures cross the network unencrypted: set tls_certificate and tls_key"
    if not credentials.knows_clients:
        return "a certificate alone keeps no client out: set api_keys or tls_client_ca"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_space(archives: Collection[Archive], run: RunFolder) -> None:
    """ServingError if logs cannot be written or the archives cannot be unpacked."""
    unpacked = sum(archive.path.stat().st_size for archive in archives)
    temporary = Path(tempfile.gettempdir())
    run.create()
    for folder, need, remedy in (
        (run.path, SPARE_BYTES, "choose another place with --run-dir"),
        (
            temporary,
            SPARE_BYTES + unpacked,
            "set TMPDIR to another place for the unpacked archives",
        ),
    ):
        free = shutil.disk_usage(folder).free
        if free < need:
            raise ServingError(
                f"{folder} has {free / 2**20:.0f} MiB free, {need / 2**20:.0f} are needed: free "
                f"some, or {remedy}"
            )


def check_ports(config: Config) -> None:
    """ServingError if an address is taken or does not belong to this machine."""
    for key, (host, port) in config.addresses.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # As Envoy and TorchServe do: sockets in TIME_WAIT do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ServingError(
                    f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it "
                    f"(a server of this project: `make stop`), or change {key} in {config.path}"
                ) from error
