"""Pixels -> the network's outputs: the TorchScript engine, its precision and its golden example."""
