"""Tools that run on the product and are no part of it: `make help` lists them."""
