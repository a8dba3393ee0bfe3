"""What `preimage evaluate` measures: reconstruction, generation, what can be read out of codes, time and memory."""
