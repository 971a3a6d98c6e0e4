"""A page on this machine that shows what the server makes of a photograph: ``vision page``."""

from vision_client.page.app import application, serve

__all__ = ["application", "serve"]
