"""Checkpoints -> TorchScript -> TorchServe archives.

Workers never import this package. ``serving.verify`` takes the verified downloads from it, and the
benchmark builds its networks with it.
"""
