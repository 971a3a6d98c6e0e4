"""What runs inside a TorchServe worker: bytes in, an answer out.

This package is vendored whole into every archive. It depends on torch, torchvision, Pillow and
``ts`` only, because every import here is paid at each worker start.
"""
