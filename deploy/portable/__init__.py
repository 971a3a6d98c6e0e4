"""What travels in a portable bundle beside the server: the start, and the check of every file.

These modules need Python 3.11 and nothing else: they run before anything is installed.
"""
