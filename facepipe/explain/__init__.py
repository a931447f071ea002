"""Why this name: what each step made of one face, as figures, pictures and a sentence."""
