"""Built-in adaptations, one folder each."""
