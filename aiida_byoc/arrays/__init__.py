"""Arrays: many short tasks as one job. `rules.py` deals them out, `table.py` keeps what became of each."""
