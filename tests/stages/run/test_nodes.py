"""Tests of what is reported about nodes."""

from distlstm.stages.run.nodes import Node, changes

NODE = Node(id="a" * 40, address="10.0.0.1", num_cpus=4, num_gpus=0, is_drained=False)


def test_a_node_that_was_removed_because_it_was_idle_had_no_work_to_do_again() -> None:
    (lost,) = changes({NODE.id: NODE}, {})
    (idle,) = changes({NODE.id: NODE}, {}, ended_idle={NODE.id})
    assert "is lost. Its unfinished work is done again elsewhere. The cluster has 0 CPUs" in lost
    assert "has gone: it was idle. The cluster has 0 CPUs on 0 nodes now." in idle
