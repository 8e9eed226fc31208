"""How the demo pool is made: its texts, facts, training recipes and the files they are written to."""
