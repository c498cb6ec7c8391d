"""Builders for the `datasets` library, one file per dataset."""
