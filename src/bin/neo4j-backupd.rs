//! The agent: `serve` on D-Bus, or `run` one operation in the foreground.

use neo4j_backup_agent::agent::assemble::{Role, driver, workshop};
use neo4j_backup_agent::agent::continuous;
use neo4j_backup_agent::agent::drop_ins::generate;
use neo4j_backup_agent::agent::jobs::Registry;
use neo4j_backup_agent::cli::program::{self, Parts};
use neo4j_backup_agent::dbus::authority::OwnerOnly;
use neo4j_backup_agent::dbus::polkit::Polkit;
use neo4j_backup_agent::dbus::service;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let parts = Parts { workshop: &|config| workshop(config, Role::Run), driver: &driver, generate: &generate };
    program::daemon(&parts, &|config, bus| {
        let registry = Registry::new(workshop(config, Role::Serve)?);
        let shippers = continuous::start(&registry);
        service::serve(registry, bus, Arc::new(Polkit { otherwise: OwnerOnly::of_this_process() }))?;
        shippers.join();
        Ok(())
    })
}
