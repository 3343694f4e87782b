"""Programs that speak the protocol of runners, well or not; and what its page says of them."""
