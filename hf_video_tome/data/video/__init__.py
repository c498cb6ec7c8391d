"""Decoding of video files and frame folders with PyAV and PIL: frames, their times and pixels."""
