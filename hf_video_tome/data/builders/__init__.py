"""Builders of `datasets`: one file a data set."""
