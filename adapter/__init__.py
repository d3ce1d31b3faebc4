"""The orchestration adapter: validates, accepts or refuses, and projects; it owns no durable state.

Read in the order of a message: `settings`, `problems`, `tokens`, `clients`, `registry`, `auth`, `reading`, `channel`,
`delivery`, `projection`, `convex`, `product`, `deployment`, `routes`, `app`. Of `aiida_byoc` it knows the contracts
alone.
"""
