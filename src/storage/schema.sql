-- Schema 1. Frozen: a later change is a new entry in migrations.rs, never an edit of this file.
-- The comments inside the statements are kept by SQLite, so `sqlite3 chatserver.db .schema` shows them.

CREATE TABLE users (
  -- Everybody who ever logged in.
  name          TEXT NOT NULL,              -- as written at the first login
  name_key      TEXT NOT NULL PRIMARY KEY,  -- its Unicode NFC form: the one that is compared
  registered_at INTEGER NOT NULL,           -- first login, Unix milliseconds
  last_seen_at  INTEGER NOT NULL            -- latest login, Unix milliseconds
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
  -- What waits on disk. A row is deleted when its recipient has acknowledged it, or when it is too old.
  -- A rowid table on purpose: a save appends to it, which costs less than half of inserting into a tree ordered by
  -- (recipient, seq) at a hundred places. Reading a backlog costs more for it: about 2 µs a message.
  recipient   TEXT NOT NULL,     -- users.name_key of the recipient, who need not be registered yet
  seq         INTEGER NOT NULL CHECK (seq BETWEEN 1 AND 9007199254740991), -- order of delivery, growing for each recipient
  sender      TEXT NOT NULL,     -- as the sender writes the own name
  text        TEXT NOT NULL,     -- UTF-8
  client_time INTEGER NOT NULL,  -- the sender's clock, Unix SECONDS
  accepted_at INTEGER NOT NULL,  -- the server's clock at acceptance, Unix milliseconds
  msg_id      INTEGER,           -- the sender's own number for it; NULL: it gave none
  PRIMARY KEY (recipient, seq)
) STRICT;

-- For expiry: the oldest first.
CREATE INDEX messages_by_age ON messages (accepted_at);

CREATE TABLE backlog (
  -- Kept by triggers, so that nobody ever counts messages: one row for each user for whom something waits.
  recipient TEXT NOT NULL PRIMARY KEY,
  messages  INTEGER NOT NULL,
  bytes     INTEGER NOT NULL  -- of the texts, in UTF-8
) STRICT, WITHOUT ROWID;

CREATE TRIGGER messages_inserted AFTER INSERT ON messages BEGIN
  INSERT INTO backlog VALUES (NEW.recipient, 1, length(CAST(NEW.text AS BLOB)))
    ON CONFLICT (recipient) DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
  UPDATE backlog SET messages = messages - 1, bytes = bytes - length(CAST(OLD.text AS BLOB))
    WHERE recipient = OLD.recipient;
  DELETE FROM backlog WHERE recipient = OLD.recipient AND messages = 0;
END;

CREATE TRIGGER messages_kept BEFORE UPDATE OF recipient, seq, text ON messages BEGIN
  SELECT RAISE(ABORT, 'a stored message is never changed: delete it instead');
END;

CREATE VIEW waiting AS
  -- Who has how many waiting since when. A recipient who never logged in appears under the compared form of the name.
  SELECT ifnull(users.name, backlog.recipient) AS name,
         backlog.messages AS messages,
         backlog.bytes AS bytes,            -- of the texts
         (SELECT accepted_at FROM messages WHERE messages.recipient = backlog.recipient ORDER BY seq LIMIT 1)
           AS oldest_at                     -- Unix milliseconds
  FROM backlog LEFT JOIN users ON users.name_key = backlog.recipient;

CREATE TABLE meta (
  -- One row.
  only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
  seq_floor INTEGER NOT NULL  -- every seq handed out is at or below it; after a restart new ones start above it
) STRICT;

INSERT INTO meta VALUES (1, 0);
