"""What a worker and its decode processes run: a picture's bytes in, an answer out.

The package is copied into every archive. Besides the standard library it imports torch, Pillow
and, in one file, TorchServe's ``ts``, because each import takes time at every worker start.
``metadata``, ``settings``, ``request``, ``tasks`` and ``pictures`` do not import torch.
"""
