"""Write results to files: tables, playlists, rekordbox collections, web pages."""

TABLE_SUFFIXES = (".csv", ".json", ".ndjson")  # of --output; here, because the command line must load fast
