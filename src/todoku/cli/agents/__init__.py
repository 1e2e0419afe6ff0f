"""The tools that `todoku mcp` offers to agents (Model Context Protocol): bounded, marked, and dry first."""
