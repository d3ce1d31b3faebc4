"""AiiDA's storage, for processes that would rather die than go on without their database."""
