"""The file of API keys, and `make key`: what it accepts, who may read it, what it never prints."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.gateway.credentials import Credentials
from serving.keys import Client, add_key, read_keys

KEYS = ["a-secret-of-one-client", "another~secret+of/one_client=="]


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def test_clients_limits_and_comments(path: Path) -> None:
    write(
        path,
        f"# our clients\n\nalice: {KEYS[0]}\n  bob.2 :  {KEYS[1]}  concurrent=4  # the batch job\n",
    )
    assert read_keys(path) == (Client("alice", KEYS[0]), Client("bob.2", KEYS[1], 4))


def test_a_path_that_cannot_be_looked_up_is_no_traceback(tmp_path: Path) -> None:
    """As in a folder of another user, which root, who runs this, may enter."""
    with pytest.raises(ServingError, match=r"cannot read .*: File name too long"):
        read_keys(tmp_path / ("a" * 300))


def test_a_key_is_valid_until_the_end_of_its_last_day(path: Path) -> None:
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    write(
        path,
        f"alice: {KEYS[0]} expires={today} concurrent=2\nbob: {KEYS[1]} expires={yesterday}\n",
    )
    alice, bob = read_keys(path)
    assert (alice.concurrent, alice.is_valid, bob.is_valid) == (2, True, False)
    midnight = datetime.combine(today, datetime.min.time(), UTC)
    assert (alice.expires, bob.expires) == (midnight + timedelta(days=1), midnight)
    credentials = Credentials(path, None, None)
    assert credentials.clients() == (alice,)
    assert credentials.expiries() == {("key", "alice"): alice.expires, ("key", "bob"): midnight}
    with pytest.raises(ServingError, match=r"has expired: change `expires=` in .*, line 2"):
        add_key(path, "bob", rotate=True)


def test_a_file_without_clients_lets_nobody_in(path: Path) -> None:
    assert read_keys(write(path, "# nobody\n")) == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (KEYS[0], "`name: key` is needed"),
        ("alice", "`name: key` is needed"),
        ("alice:", "`name: key` is needed"),
        (f": {KEYS[0]}", "`name: key` is needed"),
        (f"-: {KEYS[0]}", "`name: key` is needed"),
        (f"a b: {KEYS[0]}", "`name: key` is needed"),
        (f"{'a' * 65}: {KEYS[0]}", "`name: key` is needed"),
        (f"bücher: {KEYS[0]}", "`name: key` is needed"),
        (f"{KEYS[0]}: alice", "a key has 20 to 256"),
        ("alice: secret-of-19-chars-", "a key has 20 to 256"),
        (f"alice: {'s' * 257}", "a key has 20 to 256"),
        ("alice: a-secret:with-a-colon-in-it", "a key has 20 to 256"),
        ("alice: a-secret-with-an-ümlaut-in-it", "a key has 20 to 256"),
        (f"alice: {KEYS[0]} concurrent=0", "`concurrent=N`"),
        (f"alice: {KEYS[0]} concurrent=-1", "`concurrent=N`"),
        (f"alice: {KEYS[0]} concurrent=4 concurrent=5", "`concurrent=N`"),
        (f"alice: {KEYS[0]} {KEYS[1]}", "`concurrent=N`"),
        (f"alice: {KEYS[0]} expires=2027-02-30", "the last day of the key"),
        (f"alice: {KEYS[0]} expires=tomorrow", "the last day of the key"),
        (f"alice: {KEYS[0]} expires=2027-01-31 expires=2028-01-31", "once each"),
        (f"alice: {KEYS[0]} expires=9999-12-31", "the last day of the key"),
        (f"first: {KEYS[1]}", "the name is that of line 1"),
        (f"alice: {'k' * 20}", "the key is that of line 1"),
    ],
)
def test_an_invalid_line_is_named_by_number_alone(path: Path, line: str, message: str) -> None:
    write(path, f"first: {'k' * 20}\n# a comment\n{line}\n")
    with pytest.raises(ServingError) as caught:
        read_keys(path)
    text = str(caught.value)
    assert re.search(rf"keys\.txt, line 3: .*{re.escape(message)}", text)
    for word in re.findall(r"[^\s:]{10,}", line):
        assert word not in text
    assert caught.value.__cause__ is None


def test_a_client_does_not_show_its_key() -> None:
    assert KEYS[0] not in repr(Client("alice", KEYS[0], 4))


@pytest.mark.parametrize(
    "mode",
    [0o400, 0o600, 0o700, 0o666, 0o777, *(0o600 | 1 << bit for bit in range(6))],
    ids=oct,
)
def test_only_the_owner_may_have_rights(path: Path, mode: int) -> None:
    write(path, f"alice: {KEYS[0]}\n", mode)
    if mode & 0o077:
        with pytest.raises(ServingError, match=rf"mode {mode:04o}\): chmod 600 .*keys\.txt"):
            read_keys(path)
        with pytest.raises(ServingError, match="chmod 600"):
            add_key(path, "bob")
    else:
        assert len(read_keys(path)) == 1


@pytest.mark.parametrize(
    ("owner", "mode", "accepted"),
    [(0, 0o440, True), (1000, 0o440, False), (0, 0o460, False), (0, 0o444, False)],
)
def test_the_group_may_read_what_root_has_given_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, accepted: bool
) -> None:
    """Kubernetes mounts a Secret so for a process that is not root."""
    write(path, f"alice: {KEYS[0]}\n")
    found = list(path.stat())
    found[stat.ST_MODE], found[stat.ST_UID] = stat.S_IFREG | mode, owner
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result(found))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with nullcontext() if accepted else pytest.raises(ServingError, match="open to other users"):
        assert len(read_keys(path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "`make key NAME=...` creates it"), (b"alice: \xff\n", "not UTF-8")],
)
def test_a_file_that_cannot_be_read(path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        write(path, "").write_bytes(content)
    with pytest.raises(ServingError, match=re.escape(message)):
        read_keys(path)


def test_a_new_file_is_private_and_has_a_random_key(path: Path) -> None:
    before = os.umask(0)
    try:
        key = add_key(path, "alice")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path) == (Client("alice", key),)
    assert len(key) == 43
    assert add_key(path, "bob") != key
    assert [client.name for client in read_keys(path)] == ["alice", "bob"]
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.txt"]


def test_a_name_that_exists_keeps_its_key(path: Path) -> None:
    key = add_key(path, "alice")
    with pytest.raises(ServingError, match="--replace"):
        add_key(path, "alice")
    assert read_keys(path) == (Client("alice", key),)


def test_another_key_keeps_the_rest_of_the_file(path: Path) -> None:
    name = KEYS[0]  # the key's text is also in the name
    text = f"# ours\n{name}: {KEYS[0]} concurrent=4 # batch\nbob: {KEYS[1]}"
    write(path, text)
    key = add_key(path, name, rotate=True)
    assert path.read_text() == f"# ours\n{name}: {key} concurrent=4 # batch\nbob: {KEYS[1]}\n"
    with pytest.raises(ServingError, match="no client carol"):
        add_key(path, "carol", rotate=True)


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "target", "")
    path.symlink_to(target)
    add_key(path, "alice")
    assert path.is_symlink()
    assert len(read_keys(target)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_the_file_to_its_owner(path: Path) -> None:
    os.chown(write(path, ""), 1234, 1234)
    add_key(path, "alice")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)


def test_keys_made_at_once_are_all_kept(path: Path) -> None:
    names = [f"client{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda name: add_key(path, name), names))
    assert {(client.name, client.key) for client in read_keys(path)} == set(
        zip(names, keys, strict=True)
    )


def test_an_invalid_file_is_not_changed(path: Path) -> None:
    write(path, "alice: short\n")
    with pytest.raises(ServingError, match="line 1"):
        add_key(path, "bob")
    assert path.read_text() == "alice: short\n"
    with pytest.raises(ServingError, match="not a client's name"):
        add_key(path, "a:b")


def test_the_command_prints_the_key_alone_and_once(path: Path) -> None:
    command = [sys.executable, "-m", "serving", "key", "alice", "--file", str(path)]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    first = run()
    assert first.returncode == 0, first.stderr
    (client,) = read_keys(path)
    assert first.stdout == f"{client.key}\n"
    assert client.key not in first.stderr
    assert f"api_keys={path}" in first.stderr
    again = run()
    assert again.returncode == 1
    assert again.stdout == ""
    assert client.key not in again.stderr
    other = run("--replace")
    assert other.stdout.strip() not in ("", client.key)
