"""Guards: judges of replies, each answering three questions (refused? safe? broken?) with its reason."""
