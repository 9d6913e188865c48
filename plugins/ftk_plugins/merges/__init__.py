"""Built-in mitigations, one folder each."""
