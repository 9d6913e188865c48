"""What each mitigation keeps, learns and costs, on the same streams: the numbers of ``docs/results.md``."""
