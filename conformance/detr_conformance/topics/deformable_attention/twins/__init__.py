"""Right implementations, written differently: multi-scale deformable attention, the core and the module around it."""
