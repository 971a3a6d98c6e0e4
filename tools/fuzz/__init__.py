"""Coverage-guided fuzzing, with atheris, of what clients can send: ``make fuzz SECONDS=60``.

::

    decode, request     targets: the function under test, what it may do, the seed inputs
    harness             runs a target in a child process and reports findings
    kept                inputs of earlier findings, named after what they caused; tests repeat them
"""
