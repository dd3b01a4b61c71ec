"""The commands' work. The one place where columns meet tensors, and both meet Ray."""
