"""Steps of the data chain, each a function from candidates to candidates."""
