"""What is offered: how a plugin declares its variants, and how they are found. Imports no torch."""
