"""What tests share: inputs, tiny models, records of published code, and independent oracles."""
