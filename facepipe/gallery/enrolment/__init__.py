"""Enrolment: which photos, which face of each, and whether it may be this person."""
