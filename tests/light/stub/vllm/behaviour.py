"""What is wrong with this stub, on purpose: "", broken (does not start on a host), wrong, slow."""

BEHAVIOUR = ""
