"""Bugs of what clients are answered, for which the simulator has no eyes: it speaks to the nodes, not to the interface."""

MUTANTS = [
    ("api-page-of-one-more", "src/api/listing.c", "    if (l->count == l->page_size ||", "    if (l->count > l->page_size ||",
     {"by": ["test_api_calls"]}),
    ("api-page-of-any-bytes", "src/api/listing.c", "(l->count > 0 && l->page.len + bytes > PAGE_BYTES_MAX)", "(l->count > 0 && bytes > PAGE_BYTES_MAX)",
     {"by": ["test_api_calls"]}),
    ("api-last-page-without-an-end", "src/api/listing.c", "    if (l->outcome != LISTING_END)\n        l->kind->token(l, token);", "    l->kind->token(l, token);",
     {"by": ["test_api_calls"]}),
]
