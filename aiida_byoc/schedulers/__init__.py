"""Slurm, seen from AiiDA."""
