"""The fault kit: real Redis servers, a byte-exact proxy and bad TLS peers, for tests in every language. See README.md.

The modules are imported one by one (`from faults.proxy import Proxy`), with the folder above this one on the path."""
