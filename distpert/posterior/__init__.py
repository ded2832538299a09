"""What a fit knows: the fitted posterior, draws of responses, and its file."""
