"""Video files and folders of frames, decoded with PyAV and PIL: which frames there are, when, and their pixels."""
