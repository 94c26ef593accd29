"""CLIPSeg with one prompt for each object-part (Lüddecke & Ecker, CVPR 2022): the paper's baseline, and as it is."""
