"""Replaces a version of a model by another while the server runs, and back.

The states of a model are those of ``versions.Versions``: the default alone, with a candidate that
gets a share of the requests, or with the previous default. Whatever fails leaves the state as it
was. Every step is a method of ``Loader`` or ``Stored``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.archives import Archive, read_archive
from serving.errors import ServingError
from serving.loading import Loader, Progress, refused_by_torchserve
from serving.plan import ModelPlan, Plan
from serving.preflight import check_space
from serving.replacement import plan_replacement
from serving.stored import Stored, check_room
from serving.versions import Served, Versions


@dataclass(frozen=True)
class Rollouts:
    """Rollouts on the server of ``plan``, one at a time. Methods raise ServingError.

    The next one does not wait until the version that the last one has replaced is unloaded.
    """

    plan: Plan
    loader: Loader
    lock: threading.Lock = field(default_factory=threading.Lock)

    def roll_out(self, model: str, archive: Path | None, share: float, progress: Progress) -> str:
        """Serve ``archive``, or the candidate, to ``share`` of the requests; 1.0: instead.

        Returns what was done.
        """
        with _alone(self.lock):
            said, replaced = self._roll_out(model, archive, share, progress)
            if replaced:
                self.loader.retiring.add(replaced.key)
        if replaced:
            self.loader.retire(replaced, self.plan.response_timeout, progress)
        return said

    def roll_back(self, model: str, progress: Progress) -> str:
        """End the candidate, or serve the previous version again; returns what was done."""
        with _alone(self.lock):
            said, replaced = self._roll_back(model, progress)
            self.loader.retiring.add(replaced.key)
        self.loader.retire(replaced, self.plan.response_timeout, progress)
        return said

    def _roll_out(
        self, model: str, archive: Path | None, share: float, progress: Progress
    ) -> tuple[str, ModelPlan | None]:
        versions = self._versions(model)
        if archive is None:
            return self._move(versions, share, progress)
        if versions.candidate:
            raise ServingError(
                f"{versions.candidate.key} already gets {versions.share:.4g} of the requests: "
                + self._next_steps(model)
            )
        candidate = self._load(versions, archive, progress)
        if share >= 1:
            return self._complete(versions, candidate, progress)
        self._served.change(model, candidate=candidate, share=share, previous=None)
        self._served.set_loading(None)
        return self._shared(versions, candidate, share), versions.previous

    def _roll_back(self, model: str, progress: Progress) -> tuple[str, ModelPlan]:
        versions = self._versions(model)
        if candidate := versions.candidate:
            self._served.change(model, candidate=None, share=0.0)
            Stored(versions.default.archive.path).drop_candidate()
            progress.say(f"{versions.default.key}: gets every request")
            said = f"{versions.default.key} gets every request again"
            return said + self._of_the_next_start(versions.default), candidate
        previous = versions.previous or self._load_previous(versions, progress)
        return self._restore(versions, previous, progress), versions.default

    @property
    def _served(self) -> Served:
        return self.loader.served

    def _versions(self, model: str) -> Versions:
        try:
            return self._served.of(model)
        except KeyError:
            names = ", ".join(self._served.models)
            raise ServingError(f"there is no model {model!r}: there are {names}") from None

    def _move(
        self, versions: Versions, share: float, progress: Progress
    ) -> tuple[str, ModelPlan | None]:
        model, candidate = versions.default.model, versions.candidate
        if candidate is None:
            raise ServingError(
                f"{versions.default.key} gets every request and there is no other version of "
                f"{model} to roll out: name its archive with ARCHIVE="
            )
        if share >= 1:
            return self._complete(versions, candidate, progress)
        self._served.change(model, share=share)
        return self._shared(versions, candidate, share), None

    def _load(self, versions: Versions, path: Path, progress: Progress) -> ModelPlan:
        """Load the archive at ``path`` from a copy in the model store."""
        self._plan(versions, read_archive(path))
        stored = Stored(versions.default.archive.path)
        check_room(path, stored.default.parent)
        progress.say(f"{versions.default.model}: copies {path} to {stored.candidate}")
        stored.take(path)
        try:
            planned = self._plan(versions, read_archive(stored.candidate))
            self._load_beside(planned, progress)
        except BaseException as error:
            stored.drop_candidate()
            if isinstance(error, ServingError):
                note = self._of_the_next_start(versions.default)
                raise ServingError(f"{error}{note}") from error
            raise
        return planned

    def _of_the_next_start(self, default: ModelPlan) -> str:
        """A warning if the model store has another file of that name than the one that is served.

        It is not replaced: somebody has put it there, as `make export` does.
        """
        if default.archive.path.exists() and self._content(default).samefile(default.archive.path):
            return ""
        return f"; the next start serves {default.archive.path}, which is not {default.version} now"

    def _load_previous(self, versions: Versions, progress: Progress) -> ModelPlan:
        """Load the version before from the model store, after a restart of the server."""
        default = versions.default
        path = Stored(default.archive.path).previous
        if not path.is_file():
            raise ServingError(
                f"{default.key} has replaced no other version ({path} does not exist): there is "
                "nothing to roll back to"
            )
        planned = self._plan(versions, read_archive(path))
        progress.say(f"{planned.key}: is not loaded since the server was started; loading it")
        self._load_beside(planned, progress)
        return planned

    def _load_beside(self, planned: ModelPlan, progress: Progress) -> None:
        check_space([planned.archive], self.loader.run)
        self.loader.check_memory(planned)
        progress.say(f"{planned.key}: loads beside {self._served.default(planned.model).key}")
        self.loader.load(planned, progress)

    def _plan(self, versions: Versions, archive: Archive) -> ModelPlan:
        """How ``archive`` is served beside ``versions``; ServingError if it cannot be."""
        planned = plan_replacement(self.plan, versions, archive)
        if planned.key in self.loader.retiring:
            raise ServingError(f"{planned.key} is still being unloaded: try again")
        return planned

    def _complete(
        self, versions: Versions, candidate: ModelPlan, progress: Progress
    ) -> tuple[str, ModelPlan | None]:
        """The candidate becomes the default, also for the next start."""
        default = versions.default
        stored = Stored(default.archive.path)
        was_loading = versions.candidate is None
        try:
            progress.check()
            self._switch(default, candidate, lambda: stored.promote(self._content(default)))
        except BaseException:
            if was_loading:
                self._served.set_loading(None)
                self.loader.unload(candidate)
                stored.drop_candidate()
            raise
        previous = _at(default, stored.previous)
        self._change_default(versions, _at(candidate, stored.default), previous)
        progress.say(f"{candidate.key}: gets every request")
        said = (
            f"{candidate.key} gets every request, also after the next start; {default.key} stays "
            f"loaded for {self.loader.run.make('rollback', MODEL=default.model)}"
        )
        return said, versions.previous

    def _restore(self, versions: Versions, previous: ModelPlan, progress: Progress) -> str:
        default = versions.default
        stored = Stored(default.archive.path)
        was_loading = versions.previous is None
        try:
            self._switch(default, previous, stored.restore)
        except BaseException:
            if was_loading:
                self._served.set_loading(None)
                self.loader.unload(previous)
            raise
        self._change_default(versions, _at(previous, stored.default), None)
        progress.say(f"{previous.key}: gets every request")
        return f"{previous.key} gets every request again, also after the next start"

    def _switch(self, old: ModelPlan, new: ModelPlan, store: Callable[[], None]) -> None:
        """Make ``new`` TorchServe's default and the store's, or neither."""
        with refused_by_torchserve(f"make {new.key} the default"):
            self.loader.management.set_default(new.key)
        try:
            store()
        except ServingError:
            with refused_by_torchserve(f"make {old.key} the default again"):
                self.loader.management.set_default(old.key)
            raise

    def _change_default(
        self, versions: Versions, new: ModelPlan, previous: ModelPlan | None
    ) -> None:
        self.loader.health.set_default(new.key)
        self._served.change(new.model, default=new, candidate=None, share=0.0, previous=previous)
        self._served.set_loading(None)

    def _content(self, planned: ModelPlan) -> Path:
        return self.loader.held.path(planned.archive)

    def _shared(self, versions: Versions, candidate: ModelPlan, share: float) -> str:
        return (
            f"{candidate.key} gets {share:.4g} of the requests, {versions.default.key} the others; "
            + self._next_steps(candidate.model)
        )

    def _next_steps(self, model: str) -> str:
        make = self.loader.run.make
        return (
            f"{make('rollout', MODEL=model, SHARE='1')} completes it, "
            f"{make('rollback', MODEL=model)} ends it"
        )


def _at(planned: ModelPlan, path: Path) -> ModelPlan:
    return replace(planned, archive=replace(planned.archive, path=path))


@contextlib.contextmanager
def _alone(lock: threading.Lock) -> Iterator[None]:
    if not lock.acquire(blocking=False):
        raise ServingError("another rollout or rollback is under way: wait for its end")
    try:
        yield
    finally:
        lock.release()
