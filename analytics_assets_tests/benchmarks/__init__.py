"""What a load costs, against the original configuration and against a tuned dlt script."""
