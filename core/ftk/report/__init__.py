"""What a run says when it is over: the final table, the model card, how far its weights moved."""

WEIGHTS = "weights.json"
"""The table of a stage's weights, in the stage's folder."""
