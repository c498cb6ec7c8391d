from ..classified_videos import checkpoint, class_folders, readable, rows  # noqa: F401 - fixtures
