"""One self-contained HTML page about a rate-distortion experiment, for people who decide by a curve and a picture."""
