"""Classify and translate photographs on a server of ResNet-101 and CycleGAN.

>>> from vision_client import Client
>>> with Client("http://127.0.0.1:8080") as client:
...     print(client.classify("dog.jpg").best)
...     client.translate("horse.jpg", size=512).save("zebra.png")
"""

from vision_client.answers import Classification, Prediction, Translation
from vision_client.client import AsyncClient, Client
from vision_client.errors import ConnectionFailed, ServerError, TimedOut, VisionError
from vision_client.pictures import Picture

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "ConnectionFailed",
    "Picture",
    "Prediction",
    "ServerError",
    "TimedOut",
    "Translation",
    "VisionError",
]
