"""Fast cores of deformable attention, which no block imports.

They are targets of the suite like anybody's: `detr-spec check cpu-kernel`, `detr-spec check triton-kernel`.
"""
