"""config.properties: the addresses, the archives and the options of TorchServe."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from serving.errors import ServingError

# TorchServe's own max_request_size and max_response_size, in bytes.
DEFAULT_SIZE = 6_553_500
# The gateway's gateway_memory_bytes.
DEFAULT_GATEWAY_MEMORY = 2**30


@dataclass(frozen=True)
class Config:
    """A TorchServe configuration file. Relative paths in it are relative to its own folder."""

    path: Path
    values: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Config:
        """Raises ServingError if ``path`` is not a readable text file."""
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise ServingError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ServingError(f"cannot read {path}: it is not a text file") from error
        pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return cls(path.resolve(), {key.strip(): value.strip() for key, value in pairs})

    def override(self, settings: Mapping[str, str]) -> Config:
        """The same configuration with ``settings`` in place of its own lines.

        Raises ServingError for a key that the file does not mention, not even in a comment.
        """
        mentioned = set(re.findall(r"\b(\w+)=", self.path.read_text())) if settings else set()
        for key in settings:
            if key not in mentioned:
                nearest = "".join(difflib.get_close_matches(key, mentioned, 1))
                raise ServingError(
                    f"--set {key}=: {self.path} has no such line"
                    + (f"; did you mean {nearest}?" if nearest else "")
                )
        return replace(self, values={**self.values, **settings})

    @property
    def inference(self) -> str:
        """Base URL of the inference API, without a trailing slash; https:// with a certificate."""
        url = self.values.get("inference_address", "http://127.0.0.1:8080")
        scheme = "https" if self.values.get("tls_certificate") else "http"
        return f"{scheme}://{urlsplit(url).netloc}"

    @property
    def local_inference(self) -> str:
        """``inference`` with a loopback address in place of a wildcard, for local clients."""
        return self.inference.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]")

    @property
    def metrics(self) -> str:
        """Base URL of the supervisor's health and metrics."""
        return self.values.get("metrics_address", "http://127.0.0.1:8082")

    @property
    def grpc(self) -> str:
        """``host:port`` of the gRPC inference service."""
        host = self.values.get("grpc_inference_address", "127.0.0.1")
        return f"{host}:{self.values.get('grpc_inference_port', '7070')}"

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Every public (IP address, port) of the server, by the property that sets it.

        A name such as localhost is looked up. Raises ServingError if one is no address.
        """
        return {
            name: (self._look_up(name, host), port) for name, (host, port) in self._places.items()
        }

    @property
    def _places(self) -> dict[str, tuple[str, int]]:
        """The same with hosts as they are written: names or addresses."""
        urls = {
            "inference_address": self.inference,
            "metrics_address": self.metrics,
            "grpc_inference_port": "//" + self.grpc,
        }
        return {name: self._host_and_port(name, url) for name, url in urls.items()}

    def _look_up(self, name: str, host: str) -> str:
        """The IP address of ``host``: IPv4 if it has one."""
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host))
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ServingError(
                f"{host!r} has no address ({error}): set HOST=, or {name} in {self.path}, to an "
                "address or a name of this machine"
            ) from error
        found.sort(key=lambda each: each[0] != socket.AF_INET)
        return str(found[0][4][0])

    def _host_and_port(self, name: str, url: str) -> tuple[str, int]:
        try:
            parts = urlsplit(url)
            return parts.hostname or "", parts.port or 0
        except ValueError as error:
            raise ServingError(f"{name} in {self.path} cannot be used: {error}") from error

    def move(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        model_store: Path | None = None,
    ) -> Config:
        """The same configuration with other addresses or another model store; None keeps one.

        ``host`` is where predictions are answered. Health and metrics stay on their host. Raises
        ServingError if an address cannot be used.
        """
        values, places = dict(self.values), self._places
        if host or port:
            old_host, old_port = places["inference_address"]
            values["inference_address"] = f"http://{_in_url(host or old_host)}:{port or old_port}"
        if host:
            values["grpc_inference_address"] = _in_url(host)
        if grpc_port:
            values["grpc_inference_port"] = str(grpc_port)
        if metrics_port:
            metrics = _in_url(places["metrics_address"][0])
            values["metrics_address"] = f"http://{metrics}:{metrics_port}"
        if model_store:
            values["model_store"] = str(model_store.resolve())
        return replace(self, values=values)

    @property
    def model_store(self) -> Path:
        return self.path.parent / self.values.get("model_store", "model_store")

    @property
    def archives(self) -> list[Path]:
        """The archives in ``load_models``, or every archive in the model store.

        The other versions that a rollout keeps there, with an @ in their names, do not count.
        Raises ServingError if there are none.
        """
        names = [name.strip() for name in self.values.get("load_models", "").split(",")]
        archives = [self.model_store / name for name in names if name]
        archives = archives or self._stored
        if not archives:
            raise ServingError(
                f"no archives in {self.model_store}: run `make export` (or `make export "
                "WEIGHTS=random`), or choose another model store with STORE="
            )
        return archives

    @property
    def _stored(self) -> list[Path]:
        return sorted(p for p in self.model_store.glob("*.mar") if "@" not in p.name)

    def select(self, models: Iterable[str]) -> Config:
        """The same configuration, for the archives of ``models`` alone, with or without ``.mar``.

        Raises ServingError if the model store has no such archive.
        """
        archives = dict.fromkeys(f"{model.removesuffix('.mar')}.mar" for model in models)
        for name in archives:
            if not (self.model_store / name).is_file():
                names = ", ".join(path.stem for path in self._stored)
                raise ServingError(
                    f"{self.model_store / name} does not exist: run `make export`"
                    + (f", or choose from {names}" if names else "")
                )
        return replace(self, values={**self.values, "load_models": ",".join(archives)})

    def number(self, key: str, default: int) -> int:
        """The whole number of ``key``, or ``default`` if it is absent.

        Raises ServingError if it is not a whole number.
        """
        text = self.values.get(key, str(default))
        try:
            return int(text)
        except ValueError:
            raise ServingError(f"{key} in {self.path} must be a whole number, not {text}") from None

    def file(self, key: str) -> Path | None:
        """The path of ``key``, or None if it is absent or empty."""
        text = self.values.get(key, "")
        return self.path.parent / text if text else None

    @property
    def jvm_options(self) -> list[str]:
        return self.values.get("vmargs", "").split()

    @property
    def drain_seconds(self) -> int:
        """Seconds for which the server accepts requests after SIGTERM while /readyz fails."""
        return self.number("drain_seconds", 5)

    def write(self, path: Path, **overrides: str) -> None:
        """Write the file with changes and ``overrides`` appended: a key's last value counts."""
        original = Config.read(self.path).values
        changed = {key: value for key, value in self.values.items() if original.get(key) != value}
        changed |= {"model_store": str(self.model_store.resolve()), **overrides}
        lines = [f"{key}={value}" for key, value in changed.items()]
        added = "\n# --- added by `make serve` ---\n" + "\n".join(lines) + "\n"
        path.write_text(self.path.read_text() + added)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
