"""The models: words and photos in, logits out."""
