"""The commands ``cert`` and ``key``: they write files, and print how to use them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from serving import certificates, keys
from serving.commandline import Parser, names


def add_commands(verbs: argparse._SubParsersAction[Parser]) -> None:
    cert = verbs.add_parser("cert", help="write a local authority and a certificate that it signs")
    cert.add_argument(
        "--folder", type=Path, default=Path("tls"), metavar="DIR",
        help="where the authority and the certificates are (default: %(default)s)",
    )  # fmt: skip
    kind = cert.add_mutually_exclusive_group()
    kind.add_argument(
        "--hosts", type=names, default=(), metavar="NAME,ADDRESS",
        help="the server's DNS names and IP addresses (default: those of the certificate there, "
        f"else {','.join(certificates.DEFAULT_HOSTS)})",
    )  # fmt: skip
    kind.add_argument("--client", metavar="NAME", help="instead, a certificate for that client")
    key = verbs.add_parser("key", help="make an API key for a client")
    key.add_argument("name", help="of the client, as access logs show it")
    key.add_argument(
        "--file", type=Path, default=Path("keys.txt"), metavar="FILE",
        help="where all keys are (default: %(default)s)",
    )  # fmt: skip
    key.add_argument("--replace", action="store_true", help="give an existing client another key")


def run(arguments: argparse.Namespace) -> int:
    """Run ``cert`` or ``key``; returns its exit status. Raises ServingError."""
    return _cert(arguments) if arguments.command == "cert" else _key(arguments)


def _cert(arguments: argparse.Namespace) -> int:
    if arguments.client is None:
        issued = certificates.issue_server(arguments.folder, arguments.hosts)
        name = f"[{issued.names[0]}]" if ":" in issued.names[0] else issued.names[0]
        server = f"tls_certificate={issued.path} tls_key={issued.key_path}"
        client = f"curl --cacert {issued.authority.path} https://{name}:8080/ping"
    else:
        issued = certificates.issue_client(arguments.folder, arguments.client)
        server = f"tls_client_ca={issued.authority.path}"
        client = (
            f"curl --cacert {issued.authority.path} --cert {issued.path} --key {issued.key_path}"
        )
    authority = issued.authority
    age = "new" if authority.is_new else "as before"
    until = authority.certificate.not_valid_after_utc
    print(f"authority    {authority.path}, {age}, expires {until:%Y-%m-%d}")
    print(f"certificate  {issued.path}, expires {issued.expires:%Y-%m-%d}")
    print(f"for          {', '.join(issued.names)}")
    print(f"server       {server}   (config.properties)")
    print(f"client       {client}")
    key = authority.path.with_suffix(".key")
    print(f"{key} can sign certificates: keep it elsewhere, the server does not need it")
    return 0


def _key(arguments: argparse.Namespace) -> int:
    key = keys.add_key(arguments.file, arguments.name, rotate=arguments.replace)
    print(
        f"key of {arguments.name}, in {arguments.file}; it is not shown again.\n"
        f"server:  api_keys={arguments.file}   in config.properties\n"
        "client:  authorization: Bearer KEY",
        file=sys.stderr,
    )
    print(key)  # alone on standard output
    return 0
