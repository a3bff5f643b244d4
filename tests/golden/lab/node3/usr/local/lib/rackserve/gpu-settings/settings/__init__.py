"""Settings of GPUs: read, judged by what each GPU supports, recorded, set, and given back.

The package is copied to hosts as it is and runs there without Ansible, at boot; so it imports nothing but itself.
"""

from __future__ import annotations
