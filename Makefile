# `make run` builds and serves, `make test` installs what the tests need and runs all of them.

PREFIX ?= /usr
DESTDIR ?=
PORT ?= 8080
CARGO ?= cargo
FUZZ_SECONDS ?= 60
# Root would become the user ociregistry, who may not write here.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--user root)
PROGRAM ?= bin/ociregistry
PAPERS ?= dist/papers
# Where zsh looks for completions; Debian's looks in vendor-completions beside it.
ZSH ?= $(PREFIX)/share/zsh/site-functions
ARCHITECTURES ?= x86_64 aarch64
# The packages' own, as packaging/build writes it.
VERSION ?= $(subst -,~,$(shell sed -n 's/^version = "\(.*\)"$$/\1/p; /^\[lib\]/q' Cargo.toml))

.PHONY: server run test bench fuzz lint papers deb rpm e2e lint-packages install clean

# Both kinds of packages are made of one folder.
.NOTPARALLEL:

server:
	$(CARGO) build --release --locked
	mkdir -p bin
	cp target/release/ociregistry bin/ociregistry

run: server
	@echo 'Listening on localhost:$(PORT), with its cache in run/images. To pull through it, in another terminal:'
	@echo '  podman pull --tls-verify=false localhost:$(PORT)/registry.k8s.io/pause:3.10'
	bin/ociregistry --image-path run/images --log-level info serve --port $(PORT) $(AS_ROOT)

test:
	tests/run

# Installs the packages in machines of its own and sees what comes of it.
ifneq ($(shell id -u),0)
e2e:
	@echo 'make e2e is SKIPPED: it boots machines of its own, which takes root. Nothing was built, nothing was tested.'
else
e2e: deb rpm
	tests/install tests/e2e/packages
	tests/e2e/base target/e2e/base
	VERSION=1.99.0 OUTPUT=dist/older packaging/build deb $(shell uname -m)
	VERSION=1.99.0 OUTPUT=dist/older packaging/build rpm $(shell uname -m)
	tests/run --test e2e -- --test-threads=1
endif

bench:
	command -v nginx >/dev/null || apt-get install -y --no-install-recommends nginx-light
	$(CARGO) bench --locked --bench pulls

fuzz:
	CARGO=$(CARGO) fuzz/run $(FUZZ_SECONDS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --test e2e -- -D warnings

# For each of ARCHITECTURES, into dist/.
deb rpm:
	packaging/build $@ $(ARCHITECTURES)

lint-packages:
	tests/install packaging/linters
	lintian --allow-root --fail-on error dist/*_$(VERSION)-1_*.deb
	rpmlint -c packaging/rpm/rpmlint.toml dist/*-$(VERSION)-1.*.rpm

# Nothing is left of a command that is gone.
papers:
	rm -rf dist/papers
	$(CARGO) run --quiet --locked --example papers -- dist/papers

# What is installed, listed once: the packages are made of it. After `make server papers`.
install: CONFIGURATION = $(DESTDIR)/etc/ociregistry.toml
install: UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
install:
	install -Dm755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/ociregistry
	@# What is there may have been edited.
	@if [ ! -e $(CONFIGURATION) ] || cmp -s etc/ociregistry.toml $(CONFIGURATION); then \
		install -Dm644 etc/ociregistry.toml $(CONFIGURATION); \
	else \
		install -m644 etc/ociregistry.toml $(CONFIGURATION).new; \
		echo '$(CONFIGURATION) stays as it is; this version has $(CONFIGURATION).new'; \
	fi
	install -Dm644 -t $(UNITS) systemd/ociregistry.service systemd/ociregistry-http.socket
	sed -i 's|^\(Exec[A-Za-z]*=\)/usr/bin/|\1$(PREFIX)/bin/|' $(UNITS)/ociregistry.service
	install -Dm644 packaging/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/ociregistry.conf
	install -Dm644 packaging/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/ociregistry.conf
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man5 $(PAPERS)/*.5
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man8 $(PAPERS)/*.8
	gzip -9nf $(DESTDIR)$(PREFIX)/share/man/man5/ociregistry*.5 $(DESTDIR)$(PREFIX)/share/man/man8/ociregistry*.8
	install -Dm644 $(PAPERS)/ociregistry.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/ociregistry
	install -Dm644 $(PAPERS)/_ociregistry $(DESTDIR)$(ZSH)/_ociregistry
	install -Dm644 $(PAPERS)/ociregistry.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ociregistry.fish
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/doc/ociregistry README.md CHANGELOG.md SECURITY.md docs/*.md

clean:
	$(CARGO) clean
	rm -rf bin run dist fuzz/target
