"""From retrieved files to outputs or a named exit code."""
