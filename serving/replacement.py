"""Which archive may replace a version of a model while the server runs."""

from __future__ import annotations

from serving.archives import Archive
from serving.errors import ServingError
from serving.plan import ModelPlan, Plan, plan_version
from serving.versions import Versions


def plan_replacement(plan: Plan, versions: Versions, archive: Archive) -> ModelPlan:
    """How ``archive`` is served beside ``versions`` on the server of ``plan``.

    Raises ServingError if it cannot be.
    """
    default = versions.default
    check_replacement(versions, archive)
    planned = plan_version(plan, archive)
    started = next(each for each in plan.models if each.model == default.model)
    longest = started.response_timeout
    if planned.response_timeout > longest:
        raise ServingError(
            f"{archive.path} has responseTimeout {planned.response_timeout}, and the gateway was "
            f"started for at most {longest} s of {default.model}: move it to "
            f"{default.archive.path} and start the server again"
        )
    if (most := planned.queue + planned.workers * planned.batch) < started.slots:
        raise ServingError(
            f"{archive.path} lets TorchServe have {most} requests (jobQueueSize, workers x "
            f"batchSize), and the gateway was started to give it {started.slots} of "
            f"{default.model}: move it to {default.archive.path} and start the server again"
        )
    return planned


def check_replacement(versions: Versions, archive: Archive) -> None:
    """ServingError unless ``archive`` is another version of the same model and task."""
    default = versions.default
    if archive.model != default.model:
        raise ServingError(f"{archive.path} holds {archive.model}, not {default.model}")
    if archive.task != default.archive.task:
        raise ServingError(
            f"{archive.path} has the task {archive.task}, and {default.model} answers with "
            f"{default.archive.task}: serve it under another name"
        )
    if versions.find(archive.version):
        remedy = (
            f"`make rollback MODEL={default.model}` serves it again"
            if versions.previous and versions.previous.version == archive.version
            else "export other weights, or change its serving defaults and `make archive`"
        )
        raise ServingError(
            f"{archive.path} is version {archive.version} of {default.model}, which is loaded "
            f"already: {remedy}"
        )
