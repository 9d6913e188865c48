"""Training and test data: rows by role, rows that stand where they must not, the order in which they are learned."""
