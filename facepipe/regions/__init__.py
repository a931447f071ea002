"""Who is where, in files of other programs: XMP in photos and beside them is read, sidecars are written, photos never."""
