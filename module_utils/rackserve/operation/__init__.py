"""What gated operations share: run records, kept files of engines, the judgement of a canary, who is next."""
