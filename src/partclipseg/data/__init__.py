"""Files in, samples and batches out."""
