"""`facepipe review`: a web page on this machine on which a person names the groups of a pile. Needs the extra [web]."""
