# chatserver: `make` builds it, `make help` says what else there is.

CARGO      ?= cargo
PREFIX     ?= /usr/local
# logrotate reads /etc only.
SYSCONFDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)
DESTDIR    ?=
ARGS       ?=

BINARY   := $(or $(CARGO_TARGET_DIR),target)/release/chatserver
BINDIR    = $(DESTDIR)$(PREFIX)/bin
CONFDIR   = $(DESTDIR)$(SYSCONFDIR)/chatserver
SHAREDIR  = $(DESTDIR)$(PREFIX)/share
DOCDIR    = $(SHAREDIR)/doc/chatserver
ZSHDIR    = $(PREFIX)/share/zsh/site-functions
DOCUMENTS = README.md README.zh-CN.md BENCHMARKS.md PROTOCOL.md ARCHITECTURE.md SECURITY.md CHANGELOG.md LICENSE data/chatserver.toml
# In directories of their own, so that the links between them hold.
PAGES     = $(wildcard docs/*.* docs/lessons/*.md contrib/*/* proto/*.proto examples/*.py)

UNIT       = $(DESTDIR)$(PREFIX)/lib/systemd/system/chatserver.service
SYSUSERS   = $(DESTDIR)$(PREFIX)/lib/sysusers.d/chatserver.conf
LOGROTATE  = $(DESTDIR)$(SYSCONFDIR)/logrotate.d/chatserver
MANPAGE    = $(SHAREDIR)/man/man1/chatserver.1.gz
BASH_WORDS = $(SHAREDIR)/bash-completion/completions/chatserver
ZSH_WORDS  = $(DESTDIR)$(ZSHDIR)/_chatserver
FISH_WORDS = $(SHAREDIR)/fish/vendor_completions.d/chatserver.fish

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

DRILLS = drill-kill9 drill-power drill-network drill-takeover drill-disk drill-fds drill-threads drill-slow drill-mail drill-stop drill-debugger \
  drill-strangers drill-invented

.PHONY: all run test check demo bench bench-curves model guard fuzz soak $(DRILLS) install uninstall deb deb-test clean help

all:
	$(CARGO) build --release

run: all
	chmod 700 data
	exec $(BINARY) --data ./data $(ARGS)

test:
	$(CARGO) test

check:
	$(CARGO) fmt --check
	rustfmt --check --edition 2024 tests/drill/unsynced.rs tests/fuzz/src/*.rs tests/fuzz/fuzz_targets/*.rs
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --test drill --test model -- -D warnings

# Each a number of times: TIMES=100; SEED=7 repeats the random choices of a run that had this seed. DRILL=PROGRAM is one that is built already.
DRILL ?= $(CARGO) test --test drill --
$(DRILLS): drill-%:
	$(DRILL) $* $(if $(TIMES),--times $(TIMES)) $(if $(SEED),--seed $(SEED))

# MINUTES of everything at once, or SECONDS of it.
MINUTES ?= 20
soak:
	$(DRILL) soak --times $(or $(SECONDS),$$(( 60 * $(MINUTES) ))) $(if $(SEED),--seed $(SEED))

# ITERATIONS runs of each scenario, or of SCENARIO alone, from SEED on; what a run that failed has to say is in tests/model/main.rs. MODEL=PROGRAM is built already.
ITERATIONS ?= 1000
MODEL      ?= $(CARGO) test --test model --
model:
	$(MODEL) $(SCENARIO) --iterations $(ITERATIONS) $(if $(SEED),--seed $(SEED))

# Needs valgrind. What is not counted is shared with `make test`. UPDATE=1 writes the figures anew.
guard:
	$(CARGO) --config tests/bench/guard.toml bench --quiet --profile dev --bench path -- $(if $(UPDATE),--update)

# All targets, two at a time, or TARGET alone, for SECONDS each; docs/fuzzing.md says what each claims.
fuzz:
	CARGO="$(CARGO)" tests/fuzz/run --seconds $(or $(SECONDS),60) $(TARGET)

# ROUNDS of everything, or of the rows that have a word of ONLY in them. BENCHMARKS.md says what the columns mean.
bench:
	$(CARGO) build --release --bin chatserver --example bench_mqtt
	$(CARGO) bench --bench compare -- $(if $(ROUNDS),--rounds $(ROUNDS)) $(foreach word,$(ONLY),--only $(word)) $(ARGS)

bench-curves:
	$(CARGO) bench --bench curves -- $(if $(ROUNDS),--rounds $(ROUNDS)) $(foreach word,$(ONLY),--only $(word)) --plot docs/bench-curves.png $(ARGS)

# BIN=target/debug/chatserver shows another program than the release one, as it is.
BIN ?= $(BINARY)
demo: $(if $(filter $(BINARY),$(BIN)),all)
	tests/demo.sh $(BIN)

# Built only if it is missing: root, who installs, often has no cargo.
$(BINARY):
	$(CARGO) build --release

install: $(BINARY)
	install -d "$(CONFDIR)" "$(DOCDIR)" $(foreach file,$(MANPAGE) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS),"$(dir $(file))")
	install -D -m 755 $(BINARY) "$(BINDIR)/chatserver"
	install -m 644 $(DOCUMENTS) "$(DOCDIR)"
	for page in $(PAGES); do install -D -m 644 $$page "$(DOCDIR)/$$page" || exit 1; done
	install -D -m 644 data/chatserver.service "$(UNIT)"
	sed -i 's|/usr/bin/|$(PREFIX)/bin/|; s|/etc/chatserver/|$(SYSCONFDIR)/chatserver/|' "$(UNIT)"
	install -D -m 644 data/chatserver.sysusers "$(SYSUSERS)"
	install -D -m 644 data/chatserver.logrotate "$(LOGROTATE)"
	$(BINARY) man | gzip -9n >"$(MANPAGE)"
	$(BINARY) completions bash >"$(BASH_WORDS)"
	$(BINARY) completions zsh >"$(ZSH_WORDS)"
	$(BINARY) completions fish >"$(FISH_WORDS)"
	@if [ -e "$(CONFDIR)/chatserver.toml" ]; then \
	  echo "kept the configuration $(CONFDIR)/chatserver.toml; a new sample is in $(DOCDIR)"; \
	else \
	  install -m 644 data/chatserver.toml "$(CONFDIR)/chatserver.toml" && \
	  echo "the configuration is $(CONFDIR)/chatserver.toml"; \
	fi
	@echo "start it with: $(PREFIX)/bin/chatserver --config $(SYSCONFDIR)/chatserver/chatserver.toml --data DIR"
	@echo "or as a service: systemd-sysusers && systemctl daemon-reload && systemctl enable --now chatserver"

# The configuration and the data stay: they are yours.
uninstall:
	rm -f "$(BINDIR)/chatserver" "$(UNIT)" "$(SYSUSERS)" "$(LOGROTATE)" "$(MANPAGE)" "$(BASH_WORDS)" "$(ZSH_WORDS)" "$(FISH_WORDS)"
	rm -rf "$(DOCDIR)"

# What `make install` installs, as a package. Needs dpkg-deb and dpkg-shlibdeps (Debian's dpkg-dev).
deb: all
	packaging/debian/build $(VERSION) $(BINARY)

# Builds two versions; installs, starts, upgrades, removes and purges in a Debian that it makes below CHROOT. Needs root and debootstrap.
CHROOT ?= /tmp/chatserver-deb-test
deb-test: all
	tests/package.sh $(BINARY) $(CHROOT)

clean:
	$(CARGO) clean

help:
	@echo "make             build the release program, $(BINARY)"
	@echo "make run         build it and start the server on 127.0.0.1:8989, its files in ./data"
	@echo "                 (ARGS=\"--listen 127.0.0.1:0\" passes flags on)"
	@echo "make demo        a server, two users, a live and an offline message, explained; ends by itself"
	@echo "                 (BIN=target/debug/chatserver shows that program, without building)"
	@echo "make test        all tests"
	@echo "make drill-kill9 | drill-power | drill-network | drill-takeover"
	@echo "                 kill -9, power loss, silent networks, a hundred clients of one name: many times, and no message"
	@echo "                 that was promised may be missing (TIMES=20, 20, 100, 2000; SEED= repeats a run; one line of result)"
	@echo "make drill-disk | drill-fds | drill-threads"
	@echo "                 the disk fails at the N-th write or sync, or is full; no descriptors; no threads or memory mappings (TIMES=100, 20, 20)"
	@echo "make drill-slow | drill-mail | drill-stop | drill-debugger"
	@echo "                 recipients that do not read, a mail server in every trouble, SIGTERM and SIGHUP under load, debuggers"
	@echo "                 (TIMES=30, 30, 50, 100)"
	@echo "make drill-strangers | drill-invented"
	@echo "                 a million who never log in; a million messages to names that nobody has (TIMES=1000000)"
	@echo "make soak        everything at once for MINUTES=20 (or SECONDS=): memory, descriptors and threads are flat"
	@echo "make model       delivery, timer and writers under random schedules over a modelled disk and modelled sockets (ITERATIONS=1000 of"
	@echo "                 each scenario; SCENARIO=crash that one alone; SEED= begins with a run that failed)"
	@echo "make guard       instructions per message, counted under valgrind: fails when there are 5 % more than tests/bench/path.toml says"
	@echo "                 (UPDATE=1 writes what there are)"
	@echo "make fuzz        hostile bytes, sessions, configurations and databases, made up by libFuzzer (TARGET=session that one alone;"
	@echo "                 SECONDS=60 for each; docs/fuzzing.md)"
	@echo "make bench       the bare relay, this server and mosquitto (if it is installed) in turns, as one table; half an hour"
	@echo "                 (ROUNDS=5; ONLY=stream those rows alone; ARGS=\"--time 1s --plot FILE\"; BENCHMARKS.md)"
	@echo "make bench-curves how cost grows with pairs, texts, idle users and what waits, into docs/bench-curves.png"
	@echo "                 (ROUNDS=3; ONLY=pairs, text, idle or backlog alone)"
	@echo "make check       format and lints, as a change must pass them"
	@echo "make install     program, service, log rotation, manual page, completions and documents below PREFIX,"
	@echo "                 configuration to SYSCONFDIR/chatserver/chatserver.toml unless there is one already"
	@echo "                 (PREFIX=/usr/local, SYSCONFDIR=/etc, DESTDIR= for packagers)"
	@echo "make uninstall   remove all that; the configuration and the data stay"
	@echo "make deb         a Debian package, target/deb/chatserver_VERSION_ARCHITECTURE.deb"
	@echo "make deb-test    install, upgrade, remove and purge it in a Debian of its own (root; needs debootstrap)"
	@echo "make clean       remove everything that was built"
