"""The checks of `todoku doctor` that every system needs; services contribute others."""
