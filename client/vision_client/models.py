"""The models of a server, as it lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vision_client.answers import Reply
from vision_client.errors import MALFORMED, ServerError
from vision_client.tasks.decoder import Range

MISSING = "the server does not have this model"


@dataclass(frozen=True)
class Model:
    """A model of a server. If it is not ``ready`` to answer, ``reason`` may say why.

    ``options`` are the whole numbers that a request may choose, by name; None if the server does
    not say. ``task``, ``weights`` and ``options`` are None over gRPC, and for a model that the
    server does not have.
    """

    name: str
    ready: bool
    task: str | None = None
    weights: str | None = None
    reason: str | None = None
    options: Mapping[str, Range] | None = None


def listed(reply: Reply) -> tuple[Model, ...]:
    """The models in the answer ``reply`` of ``/models``. Raises ServerError if it has none."""
    try:
        return tuple(
            Model(
                str(model["name"]),
                bool(model["ready"]),
                str(model["task"]),
                model["weights"],
                options=_options(model.get("options")),
            )
            for model in json.loads(reply.body)["models"]
        )
    except MALFORMED as error:
        raise reply.unexpected("a list of models") from error


def _options(options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Range] | None:
    if options is None:
        return None
    keys = ("default", "low", "high", "multiple")
    return {name: Range(*(int(o[k]) for k in keys)) for name, o in options.items()}


def with_readiness(
    models: Sequence[Model], reply: Reply, names: Sequence[str]
) -> tuple[Model, ...]:
    """``models`` with the readiness in ``reply``, the answer of ``/readyz``.

    If ``names`` is not empty, only these. Raises ServerError if ``reply`` is not such an answer.
    """
    try:
        report = json.loads(reply.body)
        states = {model.name: _state(report, model.name) for model in models}
    except MALFORMED as error:
        raise reply.unexpected("readiness") from error
    known = {
        model.name: replace(model, ready=bool(ready), reason=reason)
        for model in models
        for ready, reason in [states[model.name]]
    }
    return tuple(known.get(name) or Model(name, False, reason=MISSING) for name in names or known)


def _state(report: Mapping[str, Any], name: str) -> tuple[bool, str | None]:
    """Whether a model is ready, and the reason; a server that drains has one reason for all."""
    own = report if report.get("reason") else report["models"].get(name, {})
    return bool(own.get("ready")), own.get("reason")


def default(models: Sequence[Model], task: str) -> str:
    """The name of the first model of ``task``. ServerError if there is none."""
    for model in models:
        if model.task == task:
            return model.name
    names = ", ".join(model.name for model in models) or "none"
    message = f"the server has no model of the task {task}; its models: {names}"
    raise ServerError(404, "ModelNotFound", message)
