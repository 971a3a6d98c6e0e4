"""What runs in a TorchServe worker and its decode processes: a picture's bytes in, a response out.

The package is copied whole into every archive. Beside the standard library it imports torch, Pillow
and TorchServe's ``ts`` only, because each import takes time at every worker start. ``specs``,
``settings`` and ``limits`` import none of these: export and serving read them too.
"""
