"""PartCLIPSeg: object-parts composed of generalized parts and objects (Choi et al., NeurIPS 2024)."""
