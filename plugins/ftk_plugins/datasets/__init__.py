"""Built-in datasets, one folder each."""
