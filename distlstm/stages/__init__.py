"""The work of the commands. Only here do columns, tensors and Ray come together."""
