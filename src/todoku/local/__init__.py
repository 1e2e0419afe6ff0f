"""Start and guard processes on this machine: supervisor, locks and ports of `todoku up`."""
