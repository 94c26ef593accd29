"""Label maps at the size of the photo, from logits at the size of the decoder."""
