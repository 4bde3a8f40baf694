"""The playground: models side by side on one page, each with proof of which one answered."""
