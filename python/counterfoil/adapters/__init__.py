"""One module per framework. Each knows its framework and this package, and needs the framework only when it is used."""
