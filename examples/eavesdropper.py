"""What somebody can do who sits on the wire between client and server, and has no key.

Only what Python brings along is used, and no cipher: every packet that is sent was recorded, or made from a recorded one by
flipping bits. Lesson 4 (docs/lessons/04-aes-cbc.md) explains each step. For your own server on your own machine.

    eavesdropper.py record FILE                    stand in the middle: pass everything on, and write each packet into FILE
    eavesdropper.py look FILE                      what can be read without the key
    eavesdropper.py replay FILE N... [--expect K]  send the packets with these numbers again; end after K packets, or at the close
    eavesdropper.py flip FILE LOGIN CHAT --guess FROM TO TEXT --change OLD NEW
                                                   change one word of the recorded text, with nothing but a guess of what it says
"""
import argparse, errno, itertools, os, socket, struct, sys, threading

NAMES = {1: "login", 2: "answer", 3: "logout", 4: "ping", 5: "chat", 101: "receipt", 102: "ack", 103: "notice", 104: "pong"}
BLOCK = 16  # AES works on blocks of 16 bytes
HEADER = struct.Struct(">II")  # length and type, in plain sight


def connect(address):
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_packet(connection):
    """One whole packet, header included; b"" when the other side has closed."""
    packet, wanted = b"", HEADER.size
    while len(packet) < wanted:
        piece = connection.recv(wanted - len(packet))
        if not piece:
            return b""
        packet += piece
        if len(packet) == HEADER.size:
            wanted = HEADER.unpack(packet)[0]
    return packet


# --- record ---------------------------------------------------------------------------------------------------------------------


def record(options):
    """FILE gets a line for each packet: the number of its connection, > to the server or < to the client, and its bytes in hex."""
    host, port = options.listen.rsplit(":", 1)
    try:
        listener = socket.create_server((host, int(port)))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sys.exit(f"{options.listen} is in use: is a tap of an earlier lesson still running?")
    try:
        file = open(options.file, "w")
    except OSError as error:
        sys.exit(f"{options.file}: {error.strerror}")
    print(f"listening on {options.listen}, passing on to {options.server}", flush=True)
    with file:
        one_line_at_a_time = threading.Lock()

        def pass_on(source, target, number, arrow):
            try:
                while packet := read_packet(source):
                    with one_line_at_a_time:
                        print(number, arrow, packet.hex(), file=file, flush=True)
                    target.sendall(packet)
                target.shutdown(socket.SHUT_WR)
            except OSError:  # a reset on one side becomes a close on the other
                source.close(), target.close()

        for number in itertools.count(1):
            client, _ = listener.accept()
            server = connect(options.server)
            server.settimeout(None)
            threading.Thread(target=pass_on, args=(client, server, number, ">"), daemon=True).start()
            threading.Thread(target=pass_on, args=(server, client, number, "<"), daemon=True).start()


def recorded(path):
    """The packets of a recording, as (connection, arrow, bytes). Packet 1 is the first."""
    with open(path) as file:
        return [(number, arrow, bytes.fromhex(hexed)) for number, arrow, hexed in map(str.split, file)]


# --- look -----------------------------------------------------------------------------------------------------------------------


def look(options):
    """Each different block of ciphertext gets a number. Equal numbers at the beginning: equal plaintext, without knowing which."""
    numbers = {}
    print("packet  connection  type      bytes  blocks")
    for index, (connection, arrow, packet) in enumerate(recorded(options.file), 1):
        length, kind = HEADER.unpack_from(packet)
        body = packet[HEADER.size :]
        blocks = [numbers.setdefault(body[at : at + BLOCK], len(numbers) + 1) for at in range(0, len(body), BLOCK)]
        print(f"{index:6}  {connection:>8} {arrow}  {NAMES.get(kind, kind):8}  {length:5}  {' '.join(map(str, blocks))}")


# --- replay ---------------------------------------------------------------------------------------------------------------------


def replay(options):
    packets = recorded(options.file)
    with connect(options.server) as connection:
        connection.sendall(b"".join(packets[number - 1][2] for number in options.number))
        got = 0
        while options.expect is None or got < options.expect:
            packet = read_packet(connection)
            if not packet:
                print("the server closed the connection")
                return
            got += 1
            length, kind = HEADER.unpack_from(packet)
            print(f"came back: {NAMES.get(kind, kind)}, {length} bytes, {packet[HEADER.size:].hex()}")


# --- flip -----------------------------------------------------------------------------------------------------------------------


def flip(options):
    """In CBC a bit flipped in one block of ciphertext flips the same bit of the NEXT block's plaintext, and makes noise of its own.

    The noise lies inside the text, and the server takes no text that is not UTF-8. About one noise in ten thousand is. So this
    tries, and each time flips some other bits of the changed block, too: the case of its letters, then their lowest bits.
    """
    sender, recipient, text = (word.encode() for word in options.guess)
    old, new = (word.encode() for word in options.change)
    packets = recorded(options.file)
    login, chat = packets[options.login - 1][2], packets[options.chat - 1][2]

    # Where the word lies, by the layout of the message: tag, length, value, three times.
    begin = 2 + len(sender) + 2 + len(recipient) + 2
    at = begin + text.index(old)
    first = at // BLOCK * BLOCK  # the changed block's place in the plaintext; the noise is the block before it
    if len(old) != len(new) or len(text) > 127:
        sys.exit("the new word must be as long as the old one, and the text below 128 bytes")
    if first - BLOCK < begin or at + len(old) > first + BLOCK or first + BLOCK > begin + len(text):
        rule = "the word must lie in one block, which like the block before it must lie wholly within the text"
        sys.exit(rule + advice(begin, text, old))

    guess = text[first - begin : first - begin + BLOCK]
    change = bytearray(BLOCK)
    for index, (before, after) in enumerate(zip(old, new)):
        change[at - first + index] = before ^ after
    word = range(at - first, at - first + len(old))
    letters = [place for place in range(BLOCK) if place not in word and chr(guess[place]).isalpha()]
    spare = [(place, 0x20) for place in reversed(letters)] + [(place, 0x01) for place in reversed(letters)]

    for attempt in range(min(options.attempts, 2 ** len(spare))):
        mask = bytearray(change)
        for bit, (place, value) in enumerate(spare):
            mask[place] ^= value * (attempt >> bit & 1)
        forged = bytearray(chat)
        for place, value in enumerate(mask):
            forged[HEADER.size + first - BLOCK + place] ^= value
        if is_taken(options.server, login, bytes(forged)):
            print(f"attempt {attempt + 1}: the server took it")
            print(f"ciphertext block {first // BLOCK}: xor {mask.hex(' ')}")
            print(f"plaintext block {first // BLOCK + 1}: {bytes(a ^ b for a, b in zip(guess, mask))!r}")
            return
    sys.exit("no luck: every noise was refused")


def advice(begin, text, word):
    """With which spaces around it the text could be changed."""
    for before in range(2 * BLOCK):
        at = begin + before + text.index(word)
        first = at // BLOCK * BLOCK
        after = max(0, first + BLOCK - (begin + before + len(text)))
        if first - BLOCK >= begin and at + len(word) <= first + BLOCK and before + len(text) + after < 128:
            return f";\nsend it with {before} more spaces at its beginning and {after} at its end, and guess that"
    return ""


def is_taken(server, login, chat):
    """The server closes the connection at a packet that it cannot read, and says nothing to one that it can."""
    with connect(server) as connection:
        connection.sendall(login + chat)
        if not read_packet(connection):
            sys.exit("the recorded login was refused")
        connection.settimeout(0.3)
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8989", help="the real server (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (record, look, replay, flip):
        command = commands.add_parser(function.__name__)
        command.add_argument("file")
        command.set_defaults(function=function)
        if function is record:
            command.add_argument("--listen", default="127.0.0.1:8990", help="where clients come (default: %(default)s)")
        if function is replay:
            command.add_argument("number", type=int, nargs="+")
            command.add_argument("--expect", type=int)
        if function is flip:
            command.add_argument("login", type=int)
            command.add_argument("chat", type=int)
            command.add_argument("--guess", nargs=3, required=True, metavar=("FROM", "TO", "TEXT"))
            command.add_argument("--change", nargs=2, required=True, metavar=("OLD", "NEW"))
            command.add_argument("--attempts", type=int, default=100_000)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
