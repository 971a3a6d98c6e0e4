"""Embedding: a vector of features."""

from __future__ import annotations

import re
import sys
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vision_client.answers import Answer, Reply
from vision_client.extras import extra
from vision_client.tasks.decoder import Decoder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = "npy"  # the only one that says how many numbers there are, and of which type

# A .npy file of one vector: magic, version, length of the header, header, data.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([1-9][0-9]*),\), \} *\n",
    re.DOTALL,
)
_HEADER = 10  # bytes before the header
_FLOAT = 4


@dataclass(frozen=True)
class Embedding(Answer):
    """A picture's features: ``data`` is the vector as little-endian float32.

    ``np.asarray(embedding)`` and ``np.stack(embeddings)`` work, too.
    """

    data: bytes = field(repr=False)

    @property
    def values(self) -> array[float]:
        """The vector, without NumPy."""
        values = array("f", self.data)
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def numpy(self) -> npt.NDArray[np.float32]:
        """The vector, ``(features,) float32``; needs NumPy."""
        with extra("numpy", "Embedding.numpy"):
            import numpy as np
        return np.frombuffer(self.data, "<f4").astype(np.float32)

    def __len__(self) -> int:
        return len(self.data) // _FLOAT

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.numpy().__array__(dtype, copy=copy)


def decode(reply: Reply, seconds: float) -> Embedding:
    """ServerError if ``reply`` is not a .npy file of a vector of float32."""
    body = reply.body
    header = _NPY.match(body)
    if header is None or header.end() != _HEADER + int.from_bytes(header[1], "little"):
        raise reply.unexpected("an embedding")
    data = body[header.end() :]
    if len(data) != _FLOAT * int(header[2]):
        raise reply.unexpected("an embedding")
    return Embedding(reply.weights, reply.request_id, seconds, data)


EMBED = Decoder("embed", decode, canary={"format": FORMAT})
