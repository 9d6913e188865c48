"""What a run says when it is over: the final table, the HTML report, the model card."""
