"""Weights -> TorchScript -> archive. Nothing imports this package at serving time."""
