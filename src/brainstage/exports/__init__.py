"""Networks in formats of other libraries."""
