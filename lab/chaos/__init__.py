"""Everything that can go wrong in a lab, on purpose, and the comparison that shows what came of it."""
