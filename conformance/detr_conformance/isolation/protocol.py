"""What both ends of the wire agree on beside the messages. Takes nothing, so that a runner starts light."""

PROTOCOL = 1
