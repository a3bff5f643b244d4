"""The offline bundle: everything a release needs, in one folder with a signed manifest."""
