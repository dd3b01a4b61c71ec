"""The nodes of the cluster: those that are alive, those that are drained, and what changes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state

from distlstm.stages.run.events import Note, OnEvent

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Node:
    """A node that is alive."""

    id: str
    address: str
    num_cpus: int
    num_gpus: int
    is_drained: bool
    """Whether it ends soon, such as a spot instance; nothing new starts on it."""

    def __str__(self) -> str:
        """The text for messages."""
        gpus = f" and {self.num_gpus} GPUs" if self.num_gpus else ""
        return f"{self.address} ({self.num_cpus} CPUs{gpus}, id {self.id[:8]})"


def nodes() -> dict[str, Node]:
    """The nodes that are alive, by id."""
    drained = state.get_draining_nodes()
    return {
        node["NodeID"]: _node(node, is_drained=node["NodeID"] in drained)
        for node in ray.nodes()
        if node["Alive"]
    }


def _node(node: dict[str, Any], *, is_drained: bool) -> Node:
    resources = node.get("Resources", {})
    return Node(
        id=node["NodeID"],
        address=node["NodeManagerAddress"],
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
        is_drained=is_drained,
    )


def changes(before: dict[str, Node], after: dict[str, Node]) -> Iterator[str]:
    """A sentence for the user about every node that was lost, is drained, or has joined."""
    cpus = sum(node.num_cpus for node in after.values())
    for node in (before[name] for name in before.keys() - after.keys()):
        what = "has gone" if node.is_drained else "is lost"
        yield (
            f"Node {node} {what}. Its unfinished work is done again elsewhere. The cluster has "
            f"{cpus} CPUs on {len(after)} nodes now."
        )
    for name in after.keys() & before.keys():
        if after[name].is_drained and not before[name].is_drained:
            yield f"Node {after[name]} is drained. Its work moves to other nodes."
    for name in after.keys() - before.keys():
        yield f"Node {after[name]} has joined. The cluster has {cpus} CPUs now."


@contextmanager
def reported_changes(on_event: OnEvent) -> Iterator[None]:
    """Report nodes that are lost, drained or added during a block."""
    ended, first = threading.Event(), nodes()

    def watch() -> None:
        before = first
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                after = nodes()
            except Exception:  # noqa: S112 (the head does not answer; Ray tells the command itself)
                continue
            for text in changes(before, after):
                on_event(Note(text, is_warning=True))
            before = after

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=_SECONDS_BETWEEN_LOOKS)  # if the head is dead, its look lasts long
