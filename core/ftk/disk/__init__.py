"""What lies on disk: bundles of states, written aside, synced, renamed and checked; a stage's checkpoints."""
