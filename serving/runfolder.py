"""The folder with a running server's logs, effective configuration and state."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from serving.config import Config
from serving.errors import ServingError
from serving.sockets import Sockets

# Bytes. A longer log is moved to <name>.1, which replaces the one before: twice this is kept.
LOG_BYTES = 10 * 2**20
DEFAULT = Path("run")
# Set by the `run` of a portable bundle, to its own path: there is no `make`.
BUNDLE = "VISION_RUN"


@dataclass(frozen=True)
class RunFolder:
    """One server's folder; all but ``server.json`` and ``sockets`` outlives the server."""

    path: Path

    def make(self, verb: str, **variables: str) -> str:
        """The command ``verb`` for this folder as a person types it: of `make`, or of a bundle.

        ``variables`` are those of `make`, in capitals.
        """
        if bundle := os.environ.get(BUNDLE):
            options = "".join(f" --{n.lower()} {shlex.quote(v)}" for n, v in variables.items())
            return f"`{bundle} {verb}{options} --run-dir {shlex.quote(str(self.path))}`"
        if self.path != DEFAULT:
            variables["RUN"] = str(self.path)
        given = "".join(f" {name}={shlex.quote(value)}" for name, value in variables.items())
        return f"`make {verb}{given}`"

    def create(self) -> None:
        """Create the folder if needed; ServingError if it cannot be written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ServingError(
                f"cannot write to {self.path} ({error.strerror}): choose another with RUN= "
                "(--run-dir)"
            ) from error

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def serve_log(self) -> Path:
        """The output of a server in the background, with Java's warnings."""
        return self.path / "serve.log"

    @property
    def java_log(self) -> Path:
        """Java's standard output."""
        return self.logs / "java.log"

    def open_log(self, path: Path) -> BinaryIO:
        """Empty the file ``path`` and open it for processes to append to."""
        path.write_bytes(b"")
        return path.open("ab")

    def bound_logs(self) -> None:
        """Move the content of a log of more than LOG_BYTES to ``<name>.1``.

        The file itself stays, because other processes hold it open. A line written during the move
        may be lost.
        """
        for path in (self.serve_log, self.java_log):
            with contextlib.suppress(OSError):
                if path.stat().st_size > LOG_BYTES:
                    try:
                        shutil.copyfile(path, f"{path}.1")
                    finally:  # on a full disk too
                        os.truncate(path, 0)

    @property
    def _link(self) -> Path:
        return self.path / "sockets"

    @property
    def sockets(self) -> Sockets:
        """The sockets of the server that runs from here; its port numbers are 0."""
        return Sockets(self._link)

    def token(self, api: str) -> str | None:
        """TorchServe's token for ``api``, inference or management; None until it has written it."""
        try:
            return str(json.loads(self.sockets.key_file.read_text())[api]["key"])
        except (OSError, ValueError, KeyError):
            return None

    @property
    def _state(self) -> Path:
        return self.path / "server.json"

    def link(self, sockets: Sockets) -> None:
        """Let the other commands find ``sockets`` here."""
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(sockets.folder)

    def write_state(self, config: Config, *, ready: bool) -> None:
        """Record that this process serves ``config`` from here, and whether every model answers."""
        supervisor = psutil.Process()
        state = {
            "pid": supervisor.pid,
            "created": supervisor.create_time(),
            "config": str(config.path),
            "values": config.values,
            "ready": ready,
        }
        temporary = self._state.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        temporary.replace(self._state)

    def clear_state(self) -> None:
        self._state.unlink(missing_ok=True)
        self._link.unlink(missing_ok=True)

    def supervisor(self) -> psutil.Process | None:
        """The process that serves from this folder, or None; a reused process id does not count."""
        try:
            state = json.loads(self._state.read_text())
            process = psutil.Process(state["pid"])
            return process if process.create_time() == state["created"] else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def config(self) -> Config | None:
        """What the server of this folder was started with, or None if none runs."""
        if self.supervisor() is None:
            return None
        try:
            state = json.loads(self._state.read_text())
            return Config(Path(state["config"]), dict(state["values"]))
        except (OSError, ValueError, KeyError):
            return None

    def require_config(self) -> Config:
        """The same; ServingError if no server runs from this folder."""
        config = self.config()
        if config is None:
            raise ServingError(f"no server of {self.path} is running: {self.make('start')} first")
        return config

    @contextlib.contextmanager
    def reserved(self) -> Iterator[int]:
        """Hold this folder, created if needed, for one server, from its first check to its end.

        The file descriptor holds it too, in a child that inherits it. ServingError if a server
        starts or runs here.
        """
        self.create()
        fd = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other, state, remedy = self.supervisor(), "starts already", "wait for it"
                if other:
                    state, remedy = f"is running already (process {other.pid})", self.make("stop")
                raise ServingError(
                    f"a server of {self.path} {state}: {remedy}, or start another with RUN=, "
                    "PORT=, GRPC_PORT= and METRICS_PORT="
                ) from None
            yield fd
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                self.path.rmdir()  # a refused start leaves no empty folder

    def is_ready(self, supervisor: int) -> bool:
        """Whether the process with that id serves from here and every model has answered."""
        try:
            state = json.loads(self._state.read_text())
            return state["pid"] == supervisor and state["ready"] is True
        except (OSError, ValueError, KeyError):
            return False
