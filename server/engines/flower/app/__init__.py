"""The app that Flower is given: it contains nothing but the way into this package, which is installed where it runs."""
