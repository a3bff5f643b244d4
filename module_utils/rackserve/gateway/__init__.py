"""The gateway's servers at run time: membership, drain intent, sessions, and the file that keeps both over restarts."""
