"""What makes models faster on CPUs and changes nothing else: each file is one such part, behind one switch."""
