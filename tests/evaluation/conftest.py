from ..classified_videos import checkpoint, class_folders, rows  # noqa: F401 - fixtures
