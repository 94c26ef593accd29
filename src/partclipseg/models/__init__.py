"""The models, one folder per method."""
