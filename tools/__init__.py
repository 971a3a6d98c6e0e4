"""Programs that run on the product but are not part of it; `make help` lists them."""
