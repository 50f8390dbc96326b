"""`python -m zfrepro`, for torchrun and for checkouts that are not installed."""

from zfrepro.cli import main

main()
