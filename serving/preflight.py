"""Ports and disk space, checked before the start: TorchServe would fail late or quietly."""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import shutil
import socket
import tempfile
import textwrap
from collections.abc import Collection
from pathlib import Path

import psutil

from serving.archives import Archive
from serving.config import Config
from serving.errors import ServingError
from serving.gateway.credentials import Credentials
from serving.runfolder import DEFAULT, RunFolder

# For logs, the effective configuration and TorchServe's own files.
SPARE_BYTES = 64 * 2**20
# The variables of `make` that set a port, by its property.
PORT_VARIABLES = {
    "inference_address": "PORT",
    "metrics_address": "METRICS_PORT",
    "grpc_inference_port": "GRPC_PORT",
}


def check_exposure(config: Config, credentials: Credentials, *, gateway: bool) -> str:
    """A warning about what the configuration opens to the network, or an empty string.

    ServingError if predictions are open to everybody without ``open_to_network=true``.
    """
    hosts = [config.addresses[name][0] for name in ("inference_address", "grpc_inference_port")]
    if all(ipaddress.ip_address(host).is_loopback for host in hosts):
        return ""
    if not gateway or not (credentials.keys or credentials.certificate):
        if config.values.get("open_to_network") == "true":
            return "everybody who reaches this machine can send requests (open_to_network=true)"
        raise ServingError(
            f"predictions would be open to the network ({', '.join(hosts)}) without keys or TLS: "
            f"set api_keys (`make key NAME=...`) and tls_certificate with tls_key (`make cert`) in "
            f"{config.path}, or open_to_network=true if another program keeps strangers out; "
            "GATEWAY=0 can have neither"
        )
    if not credentials.certificate:
        return "keys and pictures cross the network unencrypted: set tls_certificate and tls_key"
    if not credentials.knows_clients:
        return "a certificate alone keeps no client out: set api_keys or tls_client_ca"
    return ""


def check_space(archives: Collection[Archive], run: RunFolder) -> None:
    """ServingError if logs cannot be written or the archives cannot be unpacked."""
    unpacked = sum(archive.path.stat().st_size for archive in archives)
    temporary = Path(tempfile.gettempdir())
    for folder, need, remedy in (
        (run.path, SPARE_BYTES, "choose another place with RUN= (--run-dir)"),
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
    """ServingError if an address is taken, used twice or not one of this machine."""
    used: dict[int, str] = {}
    for key, (host, port) in config.addresses.items():
        variable = PORT_VARIABLES[key]
        if port in used:
            raise ServingError(f"{used[port]} and {variable} are both {port}: change one")
        used[port] = variable
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family) as probe:  # a kernel may have no IPv6
                # As Envoy and TorchServe do: sockets in TIME_WAIT do not matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            user, other = "", f"HOST= and {variable}="
            if error.errno == errno.EADDRINUSE:
                user, other = f" {_user_of(host, port)}.", f"{variable}="
            raise ServingError(
                f"cannot listen on {host}:{port} ({error.strerror}).{user} Choose another with "
                f"{other} or with {key} in {config.path}"
            ) from error


def _user_of(host: str, port: int) -> str:
    """Who listens on ``port`` of the address ``host``, as far as the system tells this user."""
    wanted = ipaddress.ip_address(host)
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if not (listens and connection.laddr and connection.laddr.port == port):
                continue
            taken = ipaddress.ip_address(connection.laddr.ip)
            if taken == wanted or taken.is_unspecified or wanted.is_unspecified:
                if connection.pid is None:
                    break
                return _describe(psutil.Process(connection.pid))
    return "A process of another user has it"


def _describe(process: psutil.Process) -> str:
    for parent in (process, *process.parents()):
        command = parent.cmdline()
        if command[1:4] == ["-m", "serving", "serve"]:
            options = argparse.ArgumentParser(add_help=False)
            options.add_argument("--run-dir", type=Path, default=DEFAULT)
            stop = RunFolder(options.parse_known_args(command[4:])[0].run_dir).make("stop")
            return (
                f"A server of this project has it, process {parent.pid} in {parent.cwd()}: {stop} "
                "there"
            )
    return f"Process {process.pid} has it, {textwrap.shorten(' '.join(process.cmdline()), 100)}"
