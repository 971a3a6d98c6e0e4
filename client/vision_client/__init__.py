"""Classify, translate and embed photographs on a server.

>>> from vision_client import Client
>>> with Client("http://127.0.0.1:8080") as client:
...     print(client.classify("dog.jpg").best)
...     client.translate("horse.jpg", size=512).save("translated.png")
"""

from importlib.metadata import version

from vision_client.client import AsyncClient, Client
from vision_client.errors import ConnectionFailed, ServerError, TimedOut, VisionError
from vision_client.extras import MissingExtra
from vision_client.many import Result
from vision_client.models import Model
from vision_client.pictures import Picture
from vision_client.tasks.classify import Classification, Prediction
from vision_client.tasks.embed import Embedding
from vision_client.tasks.translate import Translation

__version__ = version("vision-client")

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "ConnectionFailed",
    "Embedding",
    "MissingExtra",
    "Model",
    "Picture",
    "Prediction",
    "Result",
    "ServerError",
    "TimedOut",
    "Translation",
    "VisionError",
    "__version__",
]
