"""What the gallery owes the people in it: erasing without a trace, forgetting in time, sealing."""
