"""The HTTP surface by who calls it: `jobs` (clients), `node` (management nodes), `operation` (operators)."""
