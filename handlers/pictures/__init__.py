"""Encoded picture bytes -> the network's input pixels, decoded in processes that can be killed."""
