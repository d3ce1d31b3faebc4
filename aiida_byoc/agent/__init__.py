"""The one process of a node: it connects outward, and opens no port.

`client` speaks HTTP, `channel` answers commands, `heartbeat` tells of liveness, `supervisor` runs them, the relay and
the launcher.
"""
