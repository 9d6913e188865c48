"""What ``ftk merge`` does: models on disk are held against each other, merged weight by weight, and written."""
