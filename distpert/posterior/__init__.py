"""The posterior of a screen: parameters, draws of responses, and its file."""
