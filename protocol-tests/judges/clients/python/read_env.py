"""Prints the variables of a .env file, as python-dotenv reads them, one NAME=VALUE per line."""

import sys

from dotenv import dotenv_values

for name, value in dotenv_values(sys.argv[1]).items():
    print(f"{name}={value}")
