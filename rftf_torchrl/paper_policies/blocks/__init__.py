"""What GR-MG and Seer share."""
