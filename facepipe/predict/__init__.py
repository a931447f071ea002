"""Step 4, predict: known, unknown or ambiguous, with a calibrated probability; and the policy that decides."""
