"""`python -m hf_video_tome`: the same as the `hf-video-tome` command."""

from .cli import main

if __name__ == "__main__":
    main()
