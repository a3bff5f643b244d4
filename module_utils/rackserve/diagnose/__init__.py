"""Why something does not serve: evidence of all hosts, rules over it, causes in order. It changes nothing."""
