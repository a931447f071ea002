"""The only reader and writer of pictures: `reading` and its `colours`, `finding` in folders, `writing`."""

from facepipe.images.finding import OUTPUT_MARK, find_images, is_output, natural_key
from facepipe.images.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_video
from facepipe.images.passing import Passing, is_left_out
from facepipe.images.reading import (
    DEFAULT_MAX_PIXELS,
    content_hash,
    file_hash,
    max_bytes,
    max_pixels,
    read_bytes,
    read_image,
    read_image_bytes,
)
from facepipe.images.writing import encode_image, write_image

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "OUTPUT_MARK",
    "VIDEO_SUFFIXES",
    "Passing",
    "content_hash",
    "encode_image",
    "file_hash",
    "find_images",
    "is_left_out",
    "is_output",
    "is_video",
    "max_bytes",
    "max_pixels",
    "natural_key",
    "read_bytes",
    "read_image",
    "read_image_bytes",
    "write_image",
]
