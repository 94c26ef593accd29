"""Training losses: binary cross-entropy of parts, objects and object-parts, and attention control."""
