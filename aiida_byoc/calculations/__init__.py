"""What runs in AiiDA for one attempt of a job."""
