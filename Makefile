# `make run` builds and serves, `make test` installs what the tests need and runs all of them.

PREFIX ?= /usr
DESTDIR ?=
PORT ?= 8080
CARGO ?= cargo
FUZZ_SECONDS ?= 60
# Root would become the user ociregistry, who may not write here.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--user root)

.PHONY: server run test bench fuzz lint install clean

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

bench:
	command -v nginx >/dev/null || apt-get install -y --no-install-recommends nginx-light
	$(CARGO) bench --locked --bench pulls

fuzz:
	CARGO=$(CARGO) fuzz/run $(FUZZ_SECONDS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

install:
	install -Dm755 bin/ociregistry $(DESTDIR)$(PREFIX)/bin/ociregistry
	install -Dm644 etc/ociregistry.toml $(DESTDIR)/etc/ociregistry.toml
	install -Dm644 systemd/ociregistry.service $(DESTDIR)$(PREFIX)/lib/systemd/system/ociregistry.service
	install -Dm644 packaging/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/ociregistry.conf
	install -Dm644 README.md $(DESTDIR)$(PREFIX)/share/doc/ociregistry/README.md
	install -Dm644 CHANGELOG.md $(DESTDIR)$(PREFIX)/share/doc/ociregistry/CHANGELOG.md
	install -Dm644 SECURITY.md $(DESTDIR)$(PREFIX)/share/doc/ociregistry/SECURITY.md
	install -Dm644 docs/mirror.md $(DESTDIR)$(PREFIX)/share/doc/ociregistry/mirror.md
	install -Dm644 docs/migrating.md $(DESTDIR)$(PREFIX)/share/doc/ociregistry/migrating.md

clean:
	$(CARGO) clean
	rm -rf bin run fuzz/target
