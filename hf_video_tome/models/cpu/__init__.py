"""CPU kernels, which make models faster and change nothing else: one file each, behind one switch."""
