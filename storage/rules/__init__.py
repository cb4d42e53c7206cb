"""What an operator decides about repositories by pattern: retention, untagged manifests, immutable tags, quotas.

`book` answers questions from memory (pure); `service` keeps one book current in every process and changes the rules;
`quotas` charges a namespace in the transaction of the change. Knows no HTTP. Start with `book`.
"""
