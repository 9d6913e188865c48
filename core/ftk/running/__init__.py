"""What happens: the run, its stages and the step."""
