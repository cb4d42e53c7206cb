"""Who may do what on the node: callers, the operator's rules, and the rights these give."""
