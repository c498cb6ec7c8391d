from ..classified_videos import checkpoint, class_folders  # noqa: F401 - fixtures
