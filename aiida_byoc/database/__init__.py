"""The node's own tables: schema `byoc` in the Postgres of the AiiDA profile."""
