"""Several processes as one run: how they meet, and how a model and its states lie on them."""
