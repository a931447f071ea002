"""From a pile of photos to people with names: groups of faces, what the user said of them, and searches."""
