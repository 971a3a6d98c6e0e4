"""Pixels -> the network's outputs: the TorchScript engine, its precision, its golden example."""
