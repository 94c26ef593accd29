"""Owners of parts: this room finds the objects of a photo and decides which pixels each of them owns."""
