"""Checkpoints -> TorchScript -> TorchServe archives.

Workers and ``serving`` never import this package; the programs in ``tools`` do.
"""
