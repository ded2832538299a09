"""What any method predicts, and what can be asked of it."""
