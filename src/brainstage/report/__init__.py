"""Everything that draws or writes for a reader: charts, terminal, pages, cards."""
