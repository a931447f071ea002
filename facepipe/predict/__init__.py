"""Step 4, predict: known, unknown or ambiguous, with a calibrated probability; and the policy that decides."""

#: Raised by hand when the same face gets another answer from the same candidates. Results of a batch are decided again then.
BEHAVIOUR = 3
