"""Accuracy experiments: a study is a table of runs, made and measured with one command."""
