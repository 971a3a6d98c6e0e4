"""The description of a network: architecture, preprocessing, checkpoints, serving defaults."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from export.serving import Serving
from export.weights import Download
from handlers import tasks
from handlers.metadata import Output, Spec
from handlers.pictures.limits import Limits

TASKS = tuple(sorted(info.name for info in pkgutil.iter_modules(tasks.__path__)))

StateDict = dict[str, torch.Tensor]
Size = tuple[int, int, int]  # (N, H, W)

# Statistics of ImageNet's training set, as torchvision's reference training uses them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input; the fields are those of ``Spec``."""

    resize: int
    crop: int | None = None
    multiple: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        for name in ("resize", "crop", "multiple"):
            value = getattr(self, name)
            if (type(value) is not int or value < 1) and (name, value) != ("crop", None):
                raise ValueError(f"{name} must be a whole number above 0, not {value!r}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation is bilinear or bicubic, not {self.interpolation!r}")
        if not len(self.mean) == len(self.std) == 3 or 0 in self.std:
            raise ValueError("mean and std have three values each, and no std is 0")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the inputs that an export runs the network on.

    ``proof`` has several batch sizes and picture sizes, to show that the trace does not depend on
    the size of the traced example. ``gate`` is the input of the accuracy gate.
    """

    trace: Size = (2, 64, 96)
    golden: Size = (1, 64, 64)
    proof: tuple[Size, ...] = ((1, 224, 224), (5, 224, 224), (2, 160, 288))
    gate: Size = (16, 224, 224)

    @classmethod
    def fixed(cls, side: int) -> Sizes:
        """For a network that takes ``side`` x ``side`` only."""
        return cls(
            trace=(2, side, side),
            golden=(1, side, side),
            proof=((1, side, side), (3, side, side)),
            gate=(8, side, side),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint. ``variant`` names the preprocessing that it was trained with."""

    download: Download
    variant: str
    source: str
    licence: str


@dataclass(frozen=True)
class Example:
    """A published picture and the published answer to it, which `make verify` compares with.

    ``checkpoint`` names the weights that gave the answer. ``expected`` is percent by label, the
    most probable first; ``size`` is (width, height) of an output picture.
    """

    picture: Download
    checkpoint: str
    expected: Mapping[str, float] = field(default_factory=dict)
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Network:
    """Everything that the bundle knows about one network. Raises ValueError if it is invalid.

    ``name``          the model's name in URLs and of its files: ``[a-z0-9_]+``
    ``task``          the module of ``handlers.tasks`` that answers with the output
    ``build``         ``build(spec)`` gives the module, with ``len(spec.labels)`` classes
    ``variants``      preprocessing by name; the first is the default
    ``head``          name of a classifier's last layer (``nn.Linear`` or ``nn.Conv2d``), which
                      gives the logits; a task of features takes it out once the weights are
                      loaded. Empty if the network gives pictures, or features itself
    ``labels``        class names if the number of classes matches and the user gives no others
    ``scale``, ``output_range``  of output pictures, see ``Spec``
    ``sizes``         None: the network takes ``crop`` x ``crop`` only
    ``checkpoints``   published ones by name; the first is what ``pretrained`` means
    ``repair``        changes a state dict that was saved by older code to fit the module
    ``untrained``     ``untrained(module, spec)`` conditions random weights in place, under
                      ``torch.no_grad()`` and a fixed seed
    ``serving``       defaults of the server
    ``example``       a published picture with its answer
    ``reference``     the argument with which ``find`` returns this network; set by ``find``
    """

    name: str
    task: str
    build: Callable[[Spec], nn.Module]
    variants: Mapping[str, Preprocessing]
    head: str = ""
    labels: tuple[str, ...] = ()
    scale: int = 1
    output_range: tuple[float, float] = (-1.0, 1.0)
    sizes: Sizes | None = None
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    repair: Callable[[StateDict], StateDict] = lambda state: state
    untrained: Callable[[nn.Module, Spec], None] = lambda _module, _spec: None
    serving: Serving = field(default_factory=Serving)
    example: Example | None = None
    reference: str = ""

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(problem)

    @property
    def output(self) -> Output:
        return tasks.find(self.task).output

    @property
    def command(self) -> str:
        """The command that exports it."""
        task = f" TASK={self.task}" if self.output == "features" else ""
        return f"make export NETWORK={self.reference}{task}"

    def with_task(self, task: str) -> Network:
        """This network as ``task`` uses it: a classifier gives its features, as ``NAME_TASK``.

        ValueError if it cannot have that task.
        """
        if task == self.task:
            return self
        if task not in TASKS:
            raise ValueError(f"there is no task {task!r}: {', '.join(TASKS)}")
        if tasks.find(task).output != "features" or self.output != "classes":
            raise ValueError(f"{self.name} has the task {self.task}, and cannot have {task}")
        return dataclasses.replace(self, name=f"{self.name}_{task}", task=task, example=None)

    def variable(self, suffix: str) -> str:
        """The environment variable that sets an option of this network: ``NAME_WEIGHTS``."""
        return f"{self.name.upper()}_{suffix}"

    def spec(self, variant: str | None = None, labels: tuple[str, ...] = ()) -> Spec:
        """The specification with the default variant and labels unless others are given.

        KeyError if there is no such variant.
        """
        variant = variant or next(iter(self.variants))
        return Spec(
            name=self.name,
            task=self.task,
            variant=variant,
            output=self.output,
            labels=tuple(labels) or self.labels,
            scale=self.scale,
            output_range=self.output_range,
            **vars(self.variants[variant]),
        )

    def input_sizes(self, spec: Spec) -> Sizes:
        """The sizes to export ``spec`` with."""
        return self.sizes or Sizes.fixed(spec.crop or spec.resize)

    def _problems(self) -> Iterator[str]:
        if not isinstance(self.name, str) or not re.fullmatch("[a-z0-9_]+", self.name):
            yield f"the name {self.name!r} must consist of lower-case letters, digits and _"
        if self.task not in TASKS:
            yield f"the task {self.task!r} is not a module of handlers/tasks: {', '.join(TASKS)}"
        if self.output == "classes" and not self.head:
            yield f"the task {self.task} needs the head, a classifier's last layer"
        if self.output == "picture" and self.head:
            yield f"a network of the task {self.task} has no head"
        for field_name in ("build", "repair", "untrained"):
            if not callable(getattr(self, field_name)):
                yield f"{field_name} must be a function"
        if not self.variants or not all(
            isinstance(variant, Preprocessing) for variant in self.variants.values()
        ):
            yield "variants must map one name or more to a Preprocessing"
        for field_name, kind in (("sizes", Sizes), ("serving", Serving), ("example", Example)):
            value = getattr(self, field_name)
            if not isinstance(value, kind) and (value is not None or kind is Serving):
                yield f"{field_name} must be a {kind.__name__}"
        if self.head and len(self.labels) < 2:
            yield "a network with a head needs labels, at least two"
        if self.sizes is None and any(v.crop is None for v in self.variants.values()):
            yield "sizes must be given for a network without a crop"
        low, high = self.output_range
        if not low < high:
            yield f"the output_range {self.output_range} is empty"
        if type(self.scale) is not int or self.scale < 1:
            yield f"the scale must be a whole number above 0, not {self.scale!r}"
        for variant in self.variants:
            yield from self._size_problems(variant)
        for name, checkpoint in self.checkpoints.items():
            if checkpoint.variant not in self.variants:
                yield f"the checkpoint {name} has the unknown variant {checkpoint.variant!r}"
        if self.example and self.example.checkpoint not in self.checkpoints:
            yield f"the example's checkpoint {self.example.checkpoint!r} is not in checkpoints"

    def _size_problems(self, variant: str) -> Iterator[str]:
        """What keeps a request without options from being answered."""
        spec = self.spec(variant)
        limits = Limits.from_map(self.serving.limits)
        side = self.scale * (spec.crop or spec.resize)
        if side**2 > limits.network_pixels:
            yield (
                f"variant {variant!r}: a square picture gives {side}x{side} pixels; "
                f"the limit network_pixels is {limits.network_pixels}"
            )
        size = tasks.load(spec).offer.integers.get("size")
        if size and not size.low <= size.default <= size.high:
            yield (
                f"variant {variant!r}: resize must be {size.low} to {size.high}, not {size.default}"
            )
        if size and size.low % size.multiple:
            yield f"variant {variant!r}: multiple must divide {size.low}, not be {size.multiple}"
        if size and size.default % size.multiple:
            yield (
                f"variant {variant!r}: resize {size.default} is not a multiple of {size.multiple}"
            )
