"""What the node does with orders: policy → ledger → launcher, and cancel."""
