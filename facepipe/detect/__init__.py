"""What stage 1 is made of: the edge map, the pyramid over integral images, boxes, and face quality. Arrays in, arrays out."""

#: Raised by hand when the same photo finds other faces, boxes, landmarks or figures, beyond rounding, or other photos can be read.
#: Photos are scanned again then.
BEHAVIOUR = 5
