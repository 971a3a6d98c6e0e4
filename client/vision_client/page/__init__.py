"""``vision page``: a page on this machine to try the server in a browser."""

from vision_client.page.app import application, serve

__all__ = ["application", "serve"]
