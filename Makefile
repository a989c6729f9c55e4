# chatserver: `make` builds it, `make help` says what else there is.

CARGO      ?= cargo
PREFIX     ?= /usr/local
SYSCONFDIR ?= $(PREFIX)/etc
DESTDIR    ?=
ARGS       ?=

BINARY   := $(or $(CARGO_TARGET_DIR),target)/release/chatserver
BINDIR    = $(DESTDIR)$(PREFIX)/bin
CONFDIR   = $(DESTDIR)$(SYSCONFDIR)/chatserver
DOCDIR    = $(DESTDIR)$(PREFIX)/share/doc/chatserver
DOCUMENTS = $(wildcard README.md PROTOCOL.md ARCHITECTURE.md CHANGELOG.md LICENSE data/chatserver.toml)

.PHONY: all run test check demo install uninstall clean help

all:
	$(CARGO) build --release

run: all
	exec $(BINARY) --data ./data $(ARGS)

test:
	$(CARGO) test

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

# BIN=target/debug/chatserver shows another program than the release one, as it is.
BIN ?= $(BINARY)
demo: $(if $(filter $(BINARY),$(BIN)),all)
	tests/demo.sh $(BIN)

# Built only if it is missing: root, who installs, often has no cargo.
$(BINARY):
	$(CARGO) build --release

install: $(BINARY)
	install -d "$(BINDIR)" "$(CONFDIR)" "$(DOCDIR)"
	install -m 755 $(BINARY) "$(BINDIR)/chatserver"
	install -m 644 $(DOCUMENTS) "$(DOCDIR)"
	@if [ -e "$(CONFDIR)/chatserver.toml" ]; then \
	  echo "kept the configuration $(CONFDIR)/chatserver.toml; a new sample is in $(DOCDIR)"; \
	else \
	  install -m 644 data/chatserver.toml "$(CONFDIR)/chatserver.toml" && \
	  echo "the configuration is $(CONFDIR)/chatserver.toml"; \
	fi
	@echo "start it with: $(PREFIX)/bin/chatserver --config $(SYSCONFDIR)/chatserver/chatserver.toml --data DIR"

# The configuration stays: it is yours.
uninstall:
	rm -f "$(BINDIR)/chatserver"
	rm -rf "$(DOCDIR)"

clean:
	$(CARGO) clean

help:
	@echo "make             build the release program, $(BINARY)"
	@echo "make run         build it and start the server on 127.0.0.1:8989, its files in ./data"
	@echo "                 (ARGS=\"--listen 127.0.0.1:0\" passes flags on)"
	@echo "make demo        a server, two users, a live and an offline message, explained; ends by itself"
	@echo "                 (BIN=target/debug/chatserver shows that program, without building)"
	@echo "make test        all tests"
	@echo "make check       format and lints, as a change must pass them"
	@echo "make install     program to PREFIX/bin, documents to PREFIX/share/doc/chatserver, configuration to"
	@echo "                 SYSCONFDIR/chatserver/chatserver.toml unless there is one already"
	@echo "                 (PREFIX=/usr/local, SYSCONFDIR=PREFIX/etc, DESTDIR= for packagers)"
	@echo "make uninstall   remove program and documents; the configuration stays"
	@echo "make clean       remove everything that was built"
