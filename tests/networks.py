"""Network namespaces of this machine as hosts of a network, with links that can be cut."""

import os
import secrets
import shutil
import subprocess
from contextlib import ExitStack
from typing import Self


def can_be_made() -> bool:
    """Whether this user may make network namespaces, and has the program for it."""
    return (
        os.getuid() == 0
        and shutil.which("ip") is not None
        and subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
    )


class Network:
    """Hosts that are namespaces with an address each, all linked to one switch."""

    def __init__(self) -> None:
        self._name = f"distlstm-{secrets.token_hex(3)}"
        self._switch = f"{self._name}-switch"
        self._num_hosts = 0
        self._made = ExitStack()

    def __enter__(self) -> Self:
        """Make the switch."""
        self._make_namespace(self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all namespaces; their links end with them."""
        self._made.close()

    def add(self) -> str:
        """Add a host; returns its address."""
        self._num_hosts += 1
        number = self._num_hosts
        host, port = self._host(number), f"port{number}"
        self._make_namespace(host)
        end = ["peer", "name", "eth0", "netns", host]
        _ip("-n", self._switch, "link", "add", port, "type", "veth", *end)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", host, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host, "link", "set", device, "up")
        return f"10.77.0.{number}"

    def within(self, address: str) -> list[str]:
        """The command that runs another one on a host."""
        return ["ip", "netns", "exec", self._host(_number(address))]

    def set_link(self, address: str, state: str) -> None:
        """Cut the link of a host (`down`) or heal it (`up`)."""
        _ip("-n", self._switch, "link", "set", f"port{_number(address)}", state)

    def _host(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _make_namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._made.callback(_ip, "netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _number(address: str) -> int:
    return int(address.rpartition(".")[2])
