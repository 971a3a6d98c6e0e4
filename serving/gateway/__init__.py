"""The gateway: Envoy on the public addresses, and the queue that decides whose request is next."""
