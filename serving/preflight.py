"""Ports and disk space, checked before the start: TorchServe would fail late or quietly."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Collection
from pathlib import Path

from serving.archives import Archive
from serving.config import Config
from serving.errors import ServingError
from serving.runfolder import RunFolder

# For logs, the effective configuration and TorchServe's own files.
SPARE_BYTES = 64 * 2**20


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
            # As TorchServe's server does: sockets in TIME_WAIT do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ServingError(
                    f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it "
                    f"(a server of this project: `make stop`), or change {key} in {config.path}"
                ) from error
