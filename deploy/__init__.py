"""Other places to serve the archives than TorchServe."""
