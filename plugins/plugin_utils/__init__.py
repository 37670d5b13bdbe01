from ._bytecode import install

install()
