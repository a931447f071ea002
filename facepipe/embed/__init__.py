"""Step 2, embed: aligned chips of the faces go through a deep network and come back as unit vectors."""

#: Raised by hand when the same face gets another vector or quality, beyond rounding. Photos are scanned again then.
BEHAVIOUR = 2
