"""CLIPSeg with one prompt for each object-part: the baseline of the paper (Lüddecke & Ecker, CVPR 2022)."""
