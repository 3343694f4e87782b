"""Images with boxes: reading COCO, checking it, augmenting it, and putting images together as a batch."""
