"""What is shown: a line for each event, then the tables. Colours on a terminal only."""
import sys
import time

GREEN, RED, GREY, BOLD, PLAIN = "32", "31", "90", "1", ""


class Timeline:
    def __init__(self, out=sys.stdout):
        self.out, self.began = out, time.monotonic()
        self.colours = out.isatty()
        self.lines = []

    @staticmethod
    def now():
        return time.monotonic()

    def paint(self, text, colour):
        return f"\033[{colour}m{text}\033[0m" if self.colours and colour else text

    def show(self, text="", colour=PLAIN):
        print(self.paint(text, colour), file=self.out, flush=True)

    def say(self, text, colour=PLAIN, at=None):
        """A line with the seconds since the start, of now or of the moment `at`."""
        seconds = (at if at is not None else time.monotonic()) - self.began
        self.lines.append({"s": round(seconds, 3), "text": text})
        self.show(f"{seconds:7.2f} s  {text}", colour)

    def table(self, head, rows):
        """Columns as wide as they need be; numbers to the right."""
        cells = [[str(c) for c in row] for row in [head, *rows]]
        width = [max(len(r[i]) for r in cells) for i in range(len(head))]
        for n, row in enumerate(cells):
            line = "  ".join(
                c.rjust(w) if _number(c) or (n == 0 and _number(cells[1][i])) else c.ljust(w)
                for i, (c, w) in enumerate(zip(row, width)))
            self.show(line.rstrip(), BOLD if n == 0 else PLAIN)


def _number(cell):
    return cell.replace(",", "").replace(".", "").lstrip("-").isdigit()


def grouped(number):
    return f"{number:,.0f}"
