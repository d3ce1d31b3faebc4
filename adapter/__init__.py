"""The orchestration adapter: validates, accepts or refuses, and projects; it owns no durable state.

Read in the order of a message: `settings`, `problems`, `auth`, `reading`, `channel`, `delivery`, `projection`,
`convex`, `routes`, `app`. Of `aiida_byoc` it knows the contracts alone.
"""
