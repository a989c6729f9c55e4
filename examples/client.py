"""A complete client. Usage: python3 client.py HOST PORT NAME TO TEXT (needs the package "cryptography")"""
import contextlib, itertools, socket, struct, sys, time
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
KEY = b"12345abcdef67890"  # the published key; it is the IV, too
AES = Cipher(algorithms.AES(KEY), modes.CBC(KEY))
def varint(n):  # protobuf's integers: 7 bits in a byte, the lowest first, the top bit says that more follow
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
def read_varint(data):
    return byte if (byte := next(data)) < 128 else byte & 127 | read_varint(data) << 7
def field(number, value):  # a tag (field number and wire type), then the value
    if isinstance(value, float): return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int): return bytes([number << 3 | 0]) + varint(value)
    return bytes([number << 3 | 2]) + varint(len(value.encode())) + value.encode()
def send(sock, kind, *values):
    plain = b"".join(map(field, itertools.count(1), values))
    missing = 16 - len(plain) % 16  # PKCS#7 padding: so many bytes, each of them this number
    body = AES.encryptor().update(plain + bytes([missing]) * missing)
    sock.sendall(struct.pack(">II", 8 + len(body), kind) + body)
def read_exactly(sock, n):  # TCP is a stream: one recv may bring half a packet
    data = b""
    while len(data) < n:
        data += sock.recv(n - len(data)) or sys.exit("the server closed the connection")
    return data
def receive(sock):  # the next packet: its type, and a dict from field number to value
    length, kind = struct.unpack(">II", read_exactly(sock, 8))
    plain = AES.decryptor().update(read_exactly(sock, length - 8))
    data, values = iter(plain[:-plain[-1]]), {}
    for tag in data:
        number = read_varint(data)  # the value itself, or the length of a string
        values[tag >> 3] = number if tag & 7 == 0 else bytes(itertools.islice(data, number)).decode()
    return kind, values

host, port, name, to, text = sys.argv[1:]
sock = socket.create_connection((host, int(port)), timeout=10)
send(sock, 1, name, 1.0, int(time.time()))  # login: name, version, Unix seconds
print(receive(sock))  # (2, {1: 1, 2: a welcome, 3: the server's time}); with 1: 0 it refuses, 2 says why, and it closes
send(sock, 5, name, to, text, int(time.time()))
with contextlib.suppress(TimeoutError): print(receive(sock))  # (5, {1: from, 2: to, 3: text, 4: time})
send(sock, 3, True, int(time.time()))  # logout
while sock.recv(4096): pass  # until the server closes: now it has read everything
