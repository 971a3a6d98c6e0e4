"""Coverage-guided fuzzing of what strangers send, by atheris: ``make fuzz SECONDS=60``.

::

    decode, request     targets: what is called, what may come of it, where mutation starts
    harness             runs a target in a process of its own and says what it found
    kept                the inputs of earlier findings, named by what they did, which tests repeat
"""
