"""What a command line of deploy/ leads to, without starting it."""

from __future__ import annotations

from pathlib import Path

import yaml

from export.networks import registered
from handlers.settings import Settings
from serving import commandline, control, torchserve
from serving.__main__ import _parser
from serving.archives import Archive
from serving.config import Config
from serving.gateway import process
from serving.machine import Java, Machine
from serving.plan import Options, Plan, plan
from serving.runfolder import RunFolder
from tests.running import ROOT


def configured(*options: str) -> Config:
    """The configuration of `python -m serving serve` with ``options``."""
    found: list[Config] = []

    def keep(config: Config, _: RunFolder) -> int:
        found.append(config)
        return 0

    own = ["serve", "--config", str(ROOT / "config.properties")]
    assert commandline.run(keep, _parser().parse_args([*own, *options])) == 0
    return found[0]


def planned(config: Config, free_memory: int) -> Plan:
    """The bundle's networks on a machine with that memory."""
    archives = []
    for name, network in registered().items():
        section = yaml.safe_load(network.serving.to_yaml())
        settings = Settings.from_yaml(section)
        archives.append(Archive(Path(name), name, network.task, "", section, settings, {}, "1.0"))
    machine = Machine(0, 4, free_memory, free_memory, Java(Path("java"), 25), ROOT)
    return plan(config, archives, machine, Options(), {})


def longest_end(config: Config) -> float:
    """Seconds from SIGTERM to the end of a server of the bundle's networks, at most."""
    answers = planned(config, 2**40).response_timeout
    processes = process.STOP_TIMEOUT_S + torchserve.STOP_TIMEOUT_S + control.END_TIMEOUT_S
    return config.drain_seconds + answers + processes
