"""Export networks: for PyTorch alone a .pt and a .pt2, for TorchServe a .mar; and a .json each."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from export import store, variables
from export.errors import ExportError, reason
from export.int8.options import AGREEMENT, Int8Options
from export.network import TASKS
from export.networks import Network, find, registered
from export.pipeline import Incomplete, Job, Report, export

EPILOG = """\
NETWORK is {networks}, the name of any classifier of torchvision, or
a .py file of your own that defines NETWORK.

weights:
  pretrained      the published checkpoint: from torch.hub's cache, else downloaded (default)
  NAME            a particular published one{checkpoints}
  random          a seeded network, untrained: for trying the server out
  PATH            your own checkpoint, as torch.save or safetensors wrote it

The options of one network among several have its name: {option} is --weights for
{example} alone. With --from-environment, as `make export` has it, their defaults are
the environment variables {variables}.
Without NETWORK and --weights they select their network: the others are left as they are.

Every network is traced, loaded again in a fresh process and proved equal to eager PyTorch before
its files in the model store change. Exit status: 0 done, 1 for a reason that is printed; a model
that failed keeps the files it had.
"""

NAME_WIDTH = 10
# Options without a value.
FLAGS = ("-h", "--help", "--aoti", "--force", "--from-environment", "--int8-only")


def main() -> int:
    # A terminated export cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        jobs, arguments = _parse(sys.argv[1:])
        exported = [job.network.name for job in jobs]
        if not arguments.network and (left := [n for n in registered() if n not in exported]):
            print(
                f"{', '.join(exported)} alone: {', '.join(left)} stays as it is "
                "(WEIGHTS=pretrained exports all)",
                flush=True,
            )
        reports = export(
            jobs,
            arguments.model_store,
            force=arguments.force,
            compiled=arguments.aoti,
            progress=_print,
        )
    except (ExportError, OSError) as error:
        if isinstance(error, Incomplete) and error.reports:
            _print_table(error.reports)
            sys.stdout.flush()
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; unfinished networks keep the files they had", file=sys.stderr)
        return 130
    _print_table(reports)
    return 0


def _parse(argv: Sequence[str]) -> tuple[list[Job], argparse.Namespace]:
    task = _task(argv)
    chosen = [find(reference, task) for reference in dict.fromkeys(_positional(argv))]
    if task and not chosen:
        raise ExportError("TASK needs NETWORK=NAME")
    networks = {network.name: network for network in chosen} or registered()
    if len(networks) < len(chosen):
        raise ExportError("two of these networks have the same name")
    # The options of the bundle's networks always exist: a script may pass them.
    try:
        parser = _parser(registered() | networks)
    except argparse.ArgumentError as error:
        raise ExportError(f"a network has the name of an option: {error}") from error
    arguments = parser.parse_args(argv)
    options = vars(arguments)
    if arguments.from_environment:
        for warning in variables.check(os.environ, registered() | networks):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        for network in networks.values():
            _read_environment(network, options)
    if not chosen and arguments.weights is None:
        named = {key.partition("/")[0] for key, value in options.items() if "/" in key and value}
        networks = {name: networks[name] for name in networks if name in named or not named}
    if len(networks) > 1 and (arguments.labels or arguments.preprocess):
        parser.error("--labels and --preprocess need one network: name it")
    int8 = _int8(arguments)
    jobs = []
    for name, network in networks.items():
        labels = options.get(f"{name}/labels") or arguments.labels
        jobs.append(
            Job(
                network,
                weights=options[f"{name}/weights"] or arguments.weights or "pretrained",
                variant=options[f"{name}/preprocess"] or arguments.preprocess,
                labels=Path(labels) if labels else None,
                seed=arguments.seed,
                int8=int8,
            )
        )
    return jobs, arguments


def _int8(arguments: argparse.Namespace) -> Int8Options | None:
    if arguments.int8:
        return Int8Options(arguments.int8, arguments.int8_agreement, arguments.int8_only)
    if arguments.int8_only or arguments.int8_agreement != AGREEMENT:
        raise ExportError("INT8_ONLY and INT8_AGREEMENT need INT8=FOLDER")
    return None


def _task(argv: Sequence[str]) -> str | None:
    """The value of --task, which decides what the networks, and so the options, are called."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task")
    return parser.parse_known_args(argv)[0].task or None


def _read_environment(network: Network, options: dict[str, str | None]) -> None:
    """Fill in the options of ``network`` that were not given."""
    for option in ("weights", "preprocess", "labels"):
        key = f"{network.name}/{option}"
        if key in options and options[key] is None:
            options[key] = os.environ.get(network.variable(option.upper()))


def _positional(argv: Sequence[str]) -> list[str]:
    """The references to networks, which decide what options there are."""
    references: list[str] = []
    previous = ""
    for i, argument in enumerate(argv):
        if argument == "--":
            return [*references, *argv[i + 1 :]]
        takes_value = previous.startswith("--") and previous not in FLAGS and "=" not in previous
        if not argument.startswith("-") and not takes_value:
            references.append(argument)
        previous = argument
    return references


def _parser(networks: dict[str, Network]) -> argparse.ArgumentParser:
    first = next(iter(registered().values()))
    names = [name for network in networks.values() for name in network.checkpoints]
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description=__doc__,
        epilog=EPILOG.format(
            networks=", ".join(registered()),
            checkpoints=f": {', '.join(names)}" if names else "",
            option=f"--{first.name}",
            example=first.name,
            variables=", ".join(map(first.variable, ("WEIGHTS", "LABELS", "PREPROCESS"))),
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "network", nargs="*", metavar="NETWORK", help="default: the bundle's own networks"
    )
    parser.add_argument(
        "--task", choices=TASKS,
        help="answer another task with these networks: embed gives the features of a classifier, "
        "as NAME_embed",
    )  # fmt: skip
    parser.add_argument(
        "--model-store", type=Path, default=store.DEFAULT, metavar="DIR",
        help="folder of the artefacts (default: model_store)",
    )  # fmt: skip
    parser.add_argument("--weights", help="of networks without their own (default: pretrained)")
    parser.add_argument("--labels", metavar="FILE", help="class names, for a single network")
    parser.add_argument("--preprocess", metavar="VARIANT", help="for a single network")
    for name, network in networks.items():
        _add_options(parser.add_argument_group(name), network)
    parser.add_argument("--seed", type=int, default=0, help="of random weights (default: 0)")
    parser.add_argument(
        "--int8", type=Path, metavar="DIR",
        help="add the network in int8, calibrated and judged on the photographs in this folder; "
        "sub-folders may be named as classes",
    )  # fmt: skip
    parser.add_argument(
        "--int8-agreement", type=float, default=AGREEMENT, metavar="SHARE",
        help="of photographs that a classifier must answer in int8 as in float32 "
        f"(default: {AGREEMENT})",
    )  # fmt: skip
    parser.add_argument(
        "--int8-only", action="store_true",
        help="archive int8 alone: a third of the size; the .pt stays complete",
    )  # fmt: skip
    parser.add_argument(
        "--from-environment", action="store_true", help="read environment variables; see below"
    )
    parser.add_argument(
        "--aoti", action="store_true", help="compile an .aoti.pt2 for this machine's CPU, too"
    )
    parser.add_argument("--force", action="store_true", help="export what has not changed, too")
    return parser


def _add_options(group: argparse._ArgumentGroup, network: Network) -> None:
    group.add_argument(
        f"--{network.name}",
        dest=f"{network.name}/weights",
        metavar="WEIGHTS",
        help="weights of this network; see below",
    )
    group.add_argument(
        f"--{network.name}-preprocess",
        dest=f"{network.name}/preprocess",
        choices=list(network.variants),
        help=f"what your own checkpoint was trained with (default: {next(iter(network.variants))})",
    )
    if network.output == "classes":
        group.add_argument(
            f"--{network.name}-labels", dest=f"{network.name}/labels", metavar="FILE",
            help="class names: a JSON list, a JSON map from index to name, or one a line",
        )  # fmt: skip


def _print(name: str, seconds: float, text: str) -> None:
    print(f"{name:<{NAME_WIDTH}} {seconds:6.1f} s  {text}", flush=True)


def _print_table(reports: Sequence[Report]) -> None:
    """``error`` is the proof's worst, relative to eager PyTorch's largest output."""
    width = max(NAME_WIDTH, *(len(r.name) for r in reports))
    print()
    print(f"{'model':<{width}} {'weights':<24} {'error':>8} {'.pt':>9} {'.mar':>9} {'time':>8}")
    for r in reports:
        sizes = f"{store.size(r.pt):>9} {store.size(r.mar):>9}"
        print(f"{r.name:<{width}} {r.weights:<24} {r.worst:>8.1g} {sizes} {r.seconds:>6.1f} s")
    if any(r.weights == "untrained" for r in reports):
        print(
            "untrained: the answers mean nothing without WEIGHTS=pretrained or your own checkpoint"
        )


if __name__ == "__main__":
    sys.exit(main())
