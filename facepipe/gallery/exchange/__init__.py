"""A gallery as one file that others can read, and back again."""
