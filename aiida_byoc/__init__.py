"""Bring-your-own compute with AiiDA and Slurm.

The package root imports nothing: `aiida_byoc.contracts` must load where AiiDA is not installed.
"""

__version__ = "0.1.0"
