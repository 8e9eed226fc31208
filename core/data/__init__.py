"""Training pairs for the search: questions a safe model refuses, and questions an expert answers (METHOD, step 1)."""
