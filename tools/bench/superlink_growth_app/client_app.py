"""Flower wants one; clients of the benchmark speak the protocol themselves."""

from flwr.clientapp import ClientApp

app = ClientApp()
