"""Says before a run what it will take: memory by part, steps and time, and what to change where it is too much."""
