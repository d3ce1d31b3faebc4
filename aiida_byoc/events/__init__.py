"""From a process's state to the product: hooks → outbox → relay; `reconcile` adds what no hook could see."""
