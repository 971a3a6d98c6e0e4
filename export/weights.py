"""The lock of published checkpoints -> a verified file on disk.

``python -m export.weights`` fetches them and does nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import NameResolutionError

from export.errors import ExportError, WeightsUnavailable
from export.store import exclusive
from handlers.specs import SPECS

LOCK = Path(__file__).with_name("weights.lock.json")
CHUNK = 2**18
TIMEOUT_S = (10, 60)  # to connect, and between two pieces
ATTEMPTS = 4
# The largest download where the lock gives no size. The largest published file has 179 MB.
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint, as the lock pins it. ``bytes`` is None where not published."""

    model: str
    name: str
    file: str
    url: str
    sha256: str
    bytes: int | None
    variant: str
    source: str
    licence: str


def published(model: str) -> dict[str, Checkpoint]:
    """The locked checkpoints of ``model`` by name, its default first."""
    entries = json.loads(LOCK.read_text())[model]
    return {name: Checkpoint(model, name, **entry) for name, entry in entries.items()}


def default(model: str) -> Checkpoint:
    """The locked checkpoint of ``model`` that `pretrained` means."""
    return next(iter(published(model).values()))


def pictures() -> list[Checkpoint]:
    """The book's dog and horse, by which `make verify` checks a server; fetched like weights."""
    return list(published("pictures").values())


def cache_folder() -> Path:
    """Where ``torch.hub`` keeps checkpoints, by its own rules and without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))  # noqa: PTH118
    return Path(home).expanduser() / "hub" / "checkpoints"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(checkpoint: Checkpoint, folder: Path | None = None) -> Path:
    """``checkpoint`` as a verified file: from the cache, else downloaded into it.

    A download goes to ``<file>.part``, is resumed from there, and takes its name only once its size
    and sha256 are right. One process at a time downloads into ``folder``; the next one waits, and
    takes what is there by then. Raises WeightsUnavailable without a network, ExportError for a
    wrong file, or one that is larger than the lock says (MAX_BYTES where it gives no size).
    """
    folder = folder or cache_folder()
    path = folder / checkpoint.file
    if not path.exists():
        busy = f"another export is downloading into {folder}"
        try:
            with exclusive(folder, busy, wait=True):
                if not path.exists():
                    _fetch(checkpoint, path)
                    return path
        except OSError as error:
            raise ExportError(f"cannot write to {folder}: {error.strerror}") from error
    _verify(checkpoint, path, f"delete {path} to have it downloaded again")
    return path


def _fetch(checkpoint: Checkpoint, path: Path) -> None:
    """Download ``checkpoint`` to ``path``, whose folder this process holds."""
    part = path.with_name(path.name + ".part")
    try:
        _download(checkpoint, part)
        _verify(checkpoint, part, f"{checkpoint.url} did not give the file that was published")
    except requests.RequestException as error:
        raise WeightsUnavailable(_unavailable(checkpoint, path.parent, error)) from error
    except ExportError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def _download(checkpoint: Checkpoint, part: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _download_rest(checkpoint, part)
        except requests.RequestException as error:
            response = error.response
            refused = response is not None and response.status_code < 500
            if attempt == ATTEMPTS or refused or _has_no_network(error):
                raise
            pause = 2 ** (attempt - 1)
            print(
                f"  {_reason(error)}; again in {pause} s ({attempt}/{ATTEMPTS - 1})",
                file=sys.stderr,
            )
            time.sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _download_rest(checkpoint: Checkpoint, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
    with requests.get(checkpoint.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # there is no rest: the digest will tell whether the part is the whole
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        have = have if resumed else 0
        length = response.headers.get("content-length")
        total = have + int(length) if length else checkpoint.bytes
        _check_size(checkpoint, total or 0)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=f"  {checkpoint.file}",
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                mininterval=0.5,
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                have += len(chunk)
                _check_size(checkpoint, have)
    if length and total is not None and have < total:
        raise requests.ConnectionError(f"the connection ended at {have} of {total} bytes")


def _check_size(checkpoint: Checkpoint, size: int) -> None:
    """Raise ExportError where ``size`` bytes are more than the file may have."""
    limit = checkpoint.bytes or MAX_BYTES
    if size > limit:
        raise ExportError(f"{checkpoint.url} gives more than {limit} bytes: not what was published")


def _verify(checkpoint: Checkpoint, path: Path, advice: str) -> None:
    size = path.stat().st_size
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        raise ExportError(f"{path} has {size} bytes, not {checkpoint.bytes}: {advice}")
    digest = sha256_of(path)
    if digest != checkpoint.sha256:
        raise ExportError(
            f"{path} has sha256 {digest}, not the published {checkpoint.sha256}: {advice}"
        )


def _unavailable(checkpoint: Checkpoint, folder: Path, error: Exception) -> str:
    variable = f"{checkpoint.model.upper()}_WEIGHTS"
    return (
        f"the published weights {checkpoint.file} are not here and cannot be downloaded "
        f"({_reason(error)})\n"
        f"  looked in    {folder}\n"
        f"  and at       {checkpoint.url}\n"
        f"  what to do   put the file into that folder and run this again, or\n"
        f"               use your own checkpoint:   make export {variable}=PATH, or\n"
        f"               try it all untrained:      make export WEIGHTS=random"
    )


def _reason(error: Exception) -> str:
    """One phrase of why; urllib3's own nests three exceptions in one line."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if _has_no_network(error):
        return "the server's name cannot be resolved: no network?"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    text = str(error)
    return text if text.startswith("the connection ended") else "no connection"


def _has_no_network(error: Exception) -> bool:
    """Whether the name did not resolve, which trying again does not change."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NameResolutionError)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export.weights", description=__doc__)
    parser.parse_args()
    try:
        for model in SPECS:
            print(f"{model}: {fetch(default(model))}")
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
