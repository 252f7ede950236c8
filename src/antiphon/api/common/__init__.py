"""What every network interface shares: authentication, rate limits, request ids, metrics, parsing."""
