"""What stage 1 is made of: the edge map, the pyramid over integral images, boxes, and face quality. Arrays in, arrays out."""
