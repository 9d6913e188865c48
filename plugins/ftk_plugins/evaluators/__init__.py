"""Built-in evaluators, one folder each."""
