"""The policies of the RFTF paper: GR-MG and Seer."""
