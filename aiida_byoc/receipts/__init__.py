"""Receipts of jobs: `facts` reads ledger and provenance, `assembly` words them, `issue` signs, `crate` packs."""
