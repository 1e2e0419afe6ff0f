"""Load, break and simulate the whole system: `todoku bench`, `todoku chaos`, `todoku simulate`."""
