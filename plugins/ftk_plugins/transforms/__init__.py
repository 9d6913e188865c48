"""Built-in transforms, one folder each."""
