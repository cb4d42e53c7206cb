"""A container's place on a network: a bridge of this node, addresses, published ports, or none of these.

It must not know containers beyond their ids. Start at `model` for the words and `store` for what happens; `bridge`
speaks to the kernel, `rules` holds the nftables text, `addresses` and `hostports` give and take back, `care` sees to
names and published ports.
"""
