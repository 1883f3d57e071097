"""The program `fsd-tune`, also run by `python -m fsd_tune`."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C during the imports, which take a moment, ends it without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fsd_tune.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
