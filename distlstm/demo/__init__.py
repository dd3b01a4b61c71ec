"""`distlstm demo`: a real corpus made offline, and the main job on it."""
