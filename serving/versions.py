"""Which versions of each model are served, and which of them answers a request.

A model has one version that answers (the default) and, after a rollout, at most one more: a
candidate, which may get a share of the requests, or the previous default, kept for a rollback.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from serving.plan import ModelPlan
from serving.refusals import no_version


@dataclass(frozen=True)
class Versions:
    """The versions of one model. ``share`` of the requests, from 0 to 1, goes to ``candidate``.

    At most one of ``candidate`` and ``previous`` is not None, except while a rollout is completed.
    """

    default: ModelPlan
    candidate: ModelPlan | None = None
    share: float = 0.0
    previous: ModelPlan | None = None

    @property
    def all(self) -> list[ModelPlan]:
        """Those that requests may name, the default first."""
        return [each for each in (self.default, self.candidate, self.previous) if each]

    def find(self, version: str) -> ModelPlan | None:
        return next((each for each in self.all if each.version == version), None)


class Served:
    """The versions of every model of ``planned``. Several threads use it.

    ``is_ready`` says whether a version, by its key, answers: a candidate that does not gets no
    share. ``chance`` gives random numbers from 0 to 1.
    """

    def __init__(
        self,
        planned: Sequence[ModelPlan],
        is_ready: Callable[[str], bool],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._is_ready = is_ready
        self._chance = chance
        self._lock = threading.Lock()
        self._models = {each.model: Versions(each) for each in planned}
        self._loading: ModelPlan | None = None
        self._present: Counter[str] = Counter()

    @property
    def models(self) -> list[str]:
        return list(self._models)

    def of(self, model: str) -> Versions:
        """The versions of ``model``; KeyError if it is not served."""
        return self._models[model]

    def default(self, model: str) -> ModelPlan:
        return self._models[model].default

    @property
    def accepted(self) -> list[ModelPlan]:
        """All versions that may answer requests, each model's default before its other one."""
        return [each for versions in list(self._models.values()) for each in versions.all]

    @property
    def watched(self) -> dict[str, ModelPlan]:
        """These and the version that is being loaded, by key."""
        loading = [self._loading] if self._loading else []
        return {each.key: each for each in (*self.accepted, *loading)}

    def set_loading(self, planned: ModelPlan | None) -> None:
        """The version that is watched already, though no request may name it yet."""
        self._loading = planned

    def change(self, model: str, **changes: object) -> None:
        """Replace fields of the model's Versions, for every request that is not sent yet."""
        with self._lock:
            self._models[model] = replace(self._models[model], **changes)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def used(self, model: str, version: str | None) -> Iterator[ModelPlan]:
        """The version that answers a request, or the one that it names; it stays until the end.

        Raises Refused if there is no version of that name.
        """
        with self._lock:
            planned = self._choose(model, version)
            self._present[planned.key] += 1
        try:
            yield planned
        finally:
            with self._lock:
                self._present[planned.key] -= 1
                if not self._present[planned.key]:
                    del self._present[planned.key]

    def present(self, key: str) -> int:
        """How many requests use that version now."""
        return self._present[key]

    def _choose(self, model: str, version: str | None) -> ModelPlan:
        versions = self._models[model]
        if version:
            found = versions.find(version)
            if found is None:
                raise no_version(model, version, [each.version for each in versions.all])
            return found
        candidate = versions.candidate
        if candidate is None or not versions.share or not self._is_ready(candidate.key):
            return versions.default
        # At random: if every tenth were chosen, clients in step would always get the same version.
        return candidate if self._chance() < versions.share else versions.default
