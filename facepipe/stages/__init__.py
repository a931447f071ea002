"""The four steps, each usable alone: detect, embed, match, predict. They do not import each other."""
