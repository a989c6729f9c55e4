-- Schema 2: what is remembered of the senders that number their messages. Frozen, as schema.sql is.

CREATE TABLE senders (
  -- Everybody who ever sent with numbers (msg_id), so that a message that is sent again after a crash is taken once.
  sender         TEXT NOT NULL PRIMARY KEY,  -- users.name_key of the sender
  forgotten_upto INTEGER NOT NULL,           -- numbers up to it are too old to be recognised
  reserved_upto  INTEGER NOT NULL,           -- no number above it was ever seen; written ahead, so some below it were not either
  used_at        INTEGER NOT NULL            -- latest use of a number, Unix milliseconds
) STRICT, WITHOUT ROWID;

CREATE TABLE sent (
  -- The numbers above forgotten_upto that were seen, with what is known of their messages: a row for each 64 numbers.
  -- A rowid table on purpose: a tree ordered by (sender, block) keeps rows above 1,002 bytes, as these become, half on pages
  -- of their own: a save of them costs two to three times as much, its log five times, the file three times.
  sender TEXT NOT NULL,     -- senders.sender
  block  INTEGER NOT NULL,  -- for the numbers 64 * block to 64 * block + 63
  ids    BLOB NOT NULL,     -- 17 bytes for each number that was used, ascending, integers big-endian: 8 bytes the number; 8 bytes
                            -- a hash of recipient, text and time; 1 byte the state: 01 STORED, 02 DELIVERED.
                            -- hex(ids) shows it in 34 digits each: 16, 16 and 2
  PRIMARY KEY (sender, block)
) STRICT;
