"""ZSSeg+: OV-PARTS' two-stage baseline, proposals of a MaskFormer classified by CLIP."""
