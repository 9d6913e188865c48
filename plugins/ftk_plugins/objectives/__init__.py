"""Built-in objectives, one folder each."""
