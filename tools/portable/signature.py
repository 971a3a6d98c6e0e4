"""A detached signature of a file, by OpenSSH: ``ssh-keygen -Y``."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from serving.errors import ServingError

# What ssh-keygen calls signatures of files; verifying needs the same word.
NAMESPACE = "file"


def check_key(key: Path) -> None:
    """ServingError if there is no ``key``."""
    if not key.is_file():
        raise ServingError(f"{key} does not exist: SIGN= names a private key, or ssh-agent's .pub")


def sign(path: Path, key: Path) -> bytes:
    """The signature of the file at ``path`` by the private ``key``, checked at once.

    ``key`` may be the public half of a key that ssh-agent has. Raises ServingError if ssh-keygen
    is missing or refuses; it asks for a passphrase in the terminal.
    """
    with tempfile.NamedTemporaryFile(suffix=".sig") as signature:
        with path.open("rb") as content:
            signed = _ssh_keygen("sign", "-f", str(key), "-n", NAMESPACE, content=content)
        signature.write(signed)
        signature.flush()
        with path.open("rb") as content:
            _ssh_keygen("check-novalidate", "-n", NAMESPACE, "-s", signature.name, content=content)
    return signed


def _ssh_keygen(verb: str, *options: str, content: object) -> bytes:
    command = ["ssh-keygen", "-Y", verb, *options]
    try:
        done = subprocess.run(command, stdin=content, capture_output=True, check=False)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise ServingError("ssh-keygen is missing: apt install openssh-client") from None
    if done.returncode:
        raise ServingError(f"ssh-keygen cannot {verb}: {done.stderr.decode().strip()}")
    output: bytes = done.stdout
    return output
