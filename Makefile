# What a person types. Each target is a short script, so that it also runs without make.
# Prerequisites of Debian 12 are installed by scripts/install-prerequisites.sh; Rust comes from rustup.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build demo test lint bench campaign host-test deb rpm clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## the two programs, in target/release/
	cargo build --release --locked --bins

demo: ## back up, lose and restore a real Neo4j and a real PostgreSQL, and tell the story
	scripts/demo.sh

test: ## everything but the campaigns, a booted host too, with the time of each stage
	scripts/test.sh

lint: ## rustfmt, clippy, cargo-deny
	scripts/lint.sh

bench: ## speed and memory beside openssl, pg_basebackup and pgBackRest; a large ledger
	scripts/bench.sh

campaign: ## long fault campaigns: the agent killed at many points of its work on real servers
	scripts/campaign.sh

host-test: ## the Debian package on a host that boots: install, back up, kill, restore, upgrade, purge
	scripts/host-test.sh

deb: ## Debian package, in target/packages/
	scripts/deb.sh

rpm: ## RPM package of the same content, in target/packages/
	scripts/rpm.sh

clean: ## what builds leave in the checkout
	cargo clean
