"""`python -m zfrepro`, for torchrun and for checkouts that are not installed."""

from zfrepro.cli import main

if __name__ == "__main__":
    main()
