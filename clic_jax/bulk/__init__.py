"""Many pictures: where they are, what becomes of each, and the processes or machines that share them."""
