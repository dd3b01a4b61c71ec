"""How the workers of a training find each other, and where they listen meanwhile.

By default, torch starts a server for this (a TCPStore), which listens on all interfaces and answers
everybody. The workers of an embedded Ray are on one machine: they use a file that only this user
may read. Gloo would take the interface of the host's name, which on many machines is that of
loopback, where no other node can reach it: it is given that of the node's address in the cluster.
"""

import fcntl
import os
import shutil
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

_LOOPBACK = "127.0.0.1"
_GET_ADDRESS = 0x8915
"""SIOCGIFADDR of Linux."""


@dataclass
class ProcessGroup(TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Ray Train's settings of the process group."""

    @property
    def backend_cls(self) -> type["_Backend"]:
        """What starts and ends the process group."""
        return _Backend


class _Backend(_TorchBackend):  # type: ignore[misc]
    _directory: Path | None = None

    def on_start(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        """Start the process group, without a server if the workers are on one machine."""
        worker_group.execute(_listen_on_address_of_node)
        if worker_group.execute_single(0, ray.util.get_node_ip_address) != _LOOPBACK:
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        self._directory = worker_group.execute_single(0, _new_directory)
        uses_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        futures = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend or ("nccl" if uses_gpus else "gloo"),
                world_rank=rank,
                world_size=len(worker_group),
                init_method=(self._directory / "store").as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(futures)

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        """End the process group."""
        try:
            super().on_shutdown(worker_group, backend_config)
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)


def _new_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="distlstm-"))


def _listen_on_address_of_node() -> None:
    """Let gloo listen on the interface of the node's address, unless the user has chosen one."""
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """The network interface that has an address of IPv4; None if it is not known."""
    if sys.platform != "linux":
        return "lo0" if address == _LOOPBACK else None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                asked = struct.pack("256s", name.encode())
                answer = fcntl.ioctl(any_socket.fileno(), _GET_ADDRESS, asked)
            except OSError:  # the interface has no such address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
