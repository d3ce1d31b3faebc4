"""AiiDA's broker on the profile's own PostgreSQL."""
