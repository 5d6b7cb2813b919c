"""The version of he-nn."""

VERSION = "0.1.0"
