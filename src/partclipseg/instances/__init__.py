"""Whose part is it: where the objects of a photo are, and which pixels each of them owns."""
