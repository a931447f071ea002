"""How often facepipe is right: verification and identification protocols, calibration, plots."""
