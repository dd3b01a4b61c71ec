"""The nodes of the cluster: which are alive or drained, what changes, and whether more can join."""

import json
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.state import state
from ray._private.worker import global_worker
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.core.generated.common_pb2 import NodeDeathInfo
from ray.exceptions import RayActorError

from distlstm.stages.run.events import Note, OnEvent

_SECONDS_BETWEEN_LOOKS = 1.0
_IDLE = NodeDeathInfo.Reason.Value("AUTOSCALER_DRAIN_IDLE")


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


def died_with_its_node(error: RayActorError) -> bool:
    """Whether an actor died because its node ended."""
    actor = state.actor_table(error.actor_id, None, None) if error.actor_id else {}
    return bool(actor) and actor["Address"]["NodeID"] not in nodes()


def can_be_added() -> bool:
    """Whether an autoscaler adds nodes for workers that wait.

    Version 2 of Ray's autoscaler reports to the control store of the cluster, version 1 to its
    key-value table. There, a cluster that cannot grow has one node type per node, `node_ID`.
    """
    gcs = global_worker.gcs_client
    if GetClusterStatusReply.FromString(gcs.get_cluster_status()).HasField("autoscaling_state"):
        return True
    status = json.loads(gcs.internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), None) or "{}")
    node_types = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    return any(not name.startswith("node_") for name in node_types)


def changes(
    before: dict[str, Node], after: dict[str, Node], *, ended_idle: Set[str] = frozenset()
) -> Iterator[str]:
    """A sentence for the user about every node that was lost, is drained, or has joined."""
    cpus = sum(node.num_cpus for node in after.values())
    for node in (before[name] for name in before.keys() - after.keys()):
        what = "has gone" if node.is_drained else "is lost"
        ending = f"{what}. Its unfinished work is done again elsewhere"
        if node.id in ended_idle:
            ending = "has gone: it was idle"
        yield f"Node {node} {ending}. The cluster has {cpus} CPUs on {len(after)} nodes now."
    for name in after.keys() & before.keys():
        if after[name].is_drained and not before[name].is_drained:
            yield f"Node {after[name]} is drained. Its work moves to other nodes."
    for name in after.keys() - before.keys():
        yield f"Node {after[name]} has joined. The cluster has {cpus} CPUs now."


def _ended_idle() -> set[str]:
    """The ids of the nodes that the autoscaler has removed because they were idle."""
    return {node["NodeID"] for node in ray.nodes() if node["DeathReason"] == _IDLE}


@contextmanager
def reported_changes(on_event: OnEvent) -> Iterator[None]:
    """Report nodes that are lost, drained or added during a block."""
    ended, first = threading.Event(), nodes()

    def watch() -> None:
        before = first
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                after = nodes()
                ended_idle = _ended_idle() if before.keys() - after.keys() else set()
            except Exception:  # noqa: S112 (the head does not answer; Ray tells the command itself)
                continue
            for text in changes(before, after, ended_idle=ended_idle):
                on_event(Note(text, is_warning=True))
            before = after

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=_SECONDS_BETWEEN_LOOKS)  # if the head is dead, its look lasts long
