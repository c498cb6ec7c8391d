from ..classified_videos import checkpoint, class_folders, readable  # noqa: F401 - fixtures
