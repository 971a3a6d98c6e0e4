"""Answers pictures in this process with an archive, without any server.

>>> with load("model_store/resnet101.mar") as model:
...     answer = model.answer(Path("dog.jpg").read_bytes(), top_k=3)
>>> json.loads(answer.body)["predictions"]

The package ``handlers`` that this module was imported from runs the network. Every archive
contains it, and Python imports from an archive: put the archive first in ``sys.path`` to run it by
its own code, as servers do. Then ``handlers`` has the task of this archive alone.
"""

from __future__ import annotations

import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from handlers.errors import InvalidOption, LoadError, RequestError
from handlers.request import Answer, Message, parse
from handlers.service import Service
from handlers.unpacked import MANIFEST, Unpacked, find_device, members, read

Picture: TypeAlias = bytes | bytearray | memoryview

# What zipfile raises for a damaged, foreign or encrypted file.
_DAMAGED = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError)


class Model:
    """A loaded archive; a context manager that ends its decode processes.

    Thread-safe: one batch is computed at a time, and other threads wait for it. It cannot be
    pickled or used after a fork: load the archive in the process that uses it.
    """

    def __init__(self, service: Service, batch_size: int) -> None:
        self.batch_size = batch_size
        self._service: Service | None = service
        self._lock = threading.Lock()

    def answer(self, picture: Picture, /, **options: object) -> Answer:
        """The answer to the bytes of a picture file: the body and content type of a server's.

        ``options`` are those of the contract: ``top_k=3``, ``size=512``, ``format="jpeg"``. Raises
        a RequestError as a server would answer, TypeError if ``picture`` is not bytes, ValueError
        after ``close``.
        """
        [answer] = self.answer_all([picture], **options)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def answer_all(
        self, pictures: Iterable[Picture], /, **options: object
    ) -> list[Answer | RequestError]:
        """The answer to each picture or its error, in order, computed in batches of the archive.

        An option that is wrong or unknown raises InvalidOption at once.
        """
        _check(self._open(), options)
        answers: list[Answer | RequestError] = []
        messages = (Message(fields={**options, "data": _bytes(picture)}) for picture in pictures)
        while batch := list(islice(messages, self.batch_size)):
            with self._lock:
                answers += self._open().answer(batch)
        return answers

    def describe(self) -> dict[str, Any]:
        """The network's metadata (``name``, ``spec``, ``weights``, ...), device, precision, ..."""
        return self._open().describe()

    def close(self) -> None:
        """End the decode processes, after the batch that is being computed."""
        with self._lock:
            service, self._service = self._service, None
        if service is not None:
            service.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> Service:
        if self._service is None:
            raise ValueError("this model is closed: load the archive again")
        return self._service


def load(
    mar: Path | str,
    device: str = "auto",
    *,
    precision: str | None = None,
    engine: str | None = None,
) -> Model:
    """Load the archive ``mar``; ``device`` is auto, gpu or cpu.

    ``precision`` and ``engine`` are those of ``handlers.settings``; None means the archive's.
    On a CPU, the network has as many threads as PyTorch (``torch.set_num_threads``) when it is
    loaded, and as many processes decode, at most one for each picture of a batch.
    Raises LoadError if ``mar`` is not a whole archive or cannot be served here.
    """
    # The network is in memory, or mapped, once it is loaded: a killed process leaves no file.
    with tempfile.TemporaryDirectory(prefix="archive-", ignore_cleanup_errors=True) as folder:
        archive = unpack(Path(mar), Path(folder))
        service = archive.service(find_device(device), precision=precision, engine=engine)
    return Model(service, archive.batch_size)


def unpack(mar: Path, folder: Path) -> Unpacked:
    """Unpack what the network needs from ``mar`` into ``folder``: not the archive's code.

    Raises LoadError if ``mar`` is not a whole archive, or ``folder`` has no room.
    """
    if not mar.is_file():
        raise LoadError(f"there is no file {mar}: run `make export`")
    try:
        with zipfile.ZipFile(mar) as file:
            for name in (MANIFEST, *filter(None, members(file.read(MANIFEST)))):
                file.extract(name, folder)
    except _DAMAGED as error:
        raise LoadError(
            f"{mar} is not an archive of this project, or is damaged ({error}): run `make archive`"
        ) from error
    except OSError as error:
        raise LoadError(f"{mar} cannot be unpacked: {error} (TMPDIR chooses the folder)") from error
    return read(folder)


def _check(service: Service, options: dict[str, object]) -> None:
    """Raise InvalidOption unless each of ``options`` is one of the model's, and valid."""
    offer = service.task.offer
    parse(Message(fields={**options, "data": b"-"}), offer)
    names = [*offer.integers, "format"]
    for name in options.keys() - set(names):
        raise InvalidOption(f"there is no option {name}: there are {', '.join(names)}")


def _bytes(picture: object) -> bytes:
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    raise TypeError(
        f"a picture must be the bytes of its file, not {type(picture).__name__}: "
        "Path(...).read_bytes()"
    )
