"""Serves the archives with Ray Serve, on one machine or on a cluster."""
