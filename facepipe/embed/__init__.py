"""Step 2, embed: aligned chips of the faces go through a deep network and come back as unit vectors."""
