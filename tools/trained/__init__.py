"""Trains a network for a few minutes, and checks the gates of all precisions on it."""
