"""The code of a worker and its decode processes: a picture's bytes in, an answer out.

The package is copied into every archive. Imports slow down every worker start, so it imports only
the standard library, torch, NumPy, Pillow, PyYAML and, in one file, TorchServe's ``ts``.
``metadata``, ``settings``, ``request``, ``tasks`` and ``pictures`` do not import torch.
"""
