"""What is asked for: from a TOML file to frozen specs, or to everything that is wrong with it. Imports no torch."""
