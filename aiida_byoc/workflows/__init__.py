"""The story of a job: attempts, recovery, outcome."""
