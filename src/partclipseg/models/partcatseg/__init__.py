"""PartCATSeg and CAT-Seg: segmentation by aggregation of image-text cost volumes."""
