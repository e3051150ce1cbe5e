//! Whole configurations, read on a faked host.

mod environment_names;
mod errors;
mod hosts;
mod robustness;
mod shown;

use super::{Loaded, Settings, Sources, load};
use crate::base::{Code, ids::TargetName};
use std::fs;
use std::path::{Path, PathBuf};

/// A host in a temporary directory, with its configuration.
pub(super) struct FakeHost {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl FakeHost {
    /// Nothing is installed; `config` is its `config.toml`.
    pub(super) fn with(config: &str) -> FakeHost {
        let host = FakeHost { directory: tempfile::tempdir().expect("tempdir"), environment: Vec::new() };
        host.file("/etc/hostname", "db1\n");
        host.file("/etc/neo4j-backup/config.toml", config);
        host
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
        self
    }

    pub(super) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn sources(&self) -> Sources {
        Sources {
            main: self.at("/etc/neo4j-backup/config.toml"),
            fragments: self.at("/etc/neo4j-backup/config.d"),
            environment: self.environment.clone(),
            root: self.directory.path().to_owned(),
        }
    }

    pub(super) fn load(&self) -> Loaded {
        load(&self.sources()).unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub(super) fn settings(&self) -> Settings {
        self.load().settings
    }

    /// The lines of the error, with paths as on the host.
    pub(super) fn problems(&self) -> Vec<String> {
        let error = load(&self.sources()).expect_err("the configuration is refused");
        assert_eq!(error.code(), Code::ConfigInvalid);
        self.plain(error.message()).lines().map(str::to_owned).collect()
    }

    /// Text without the temporary directory's name.
    pub(super) fn plain(&self, text: &str) -> String {
        text.replace(&self.directory.path().display().to_string(), "")
    }

    /// As Debian's packages of Neo4j leave it.
    pub(super) fn install_neo4j(&self) -> &Self {
        fs::create_dir_all(self.at("/var/lib/neo4j/data")).expect("mkdir");
        self.file("/etc/neo4j/neo4j.conf", "server.bolt.listen_address=:7688\ninitial.dbms.default_database=movies\n")
            .file("/usr/bin/neo4j-admin", "")
            .file("/usr/bin/neo4j", "")
            .file("/lib/systemd/system/neo4j.service", "[Service]\n")
    }

    /// As Debian's `pg_createcluster` leaves it.
    pub(super) fn install_cluster(&self, version: &str, name: &str, port: u16) -> &Self {
        let data = format!("/var/lib/postgresql/{version}/{name}");
        let conf = format!(
            "data_directory = '{data}'\t# use data in another directory\nport = {port}\n\
             unix_socket_directories = '/var/run/postgresql'\ninclude_dir = 'conf.d'\n"
        );
        self.file(&format!("/etc/postgresql/{version}/{name}/postgresql.conf"), &conf)
            .file(&format!("{data}/PG_VERSION"), &format!("{version}\n"))
            .file(&format!("/usr/lib/postgresql/{version}/bin/postgres"), "")
            .file("/lib/systemd/system/postgresql@.service", "[Service]\n")
    }
}

pub(super) fn name(name: &str) -> TargetName {
    TargetName::new(name).expect("target name")
}

pub(super) fn path(path: &str) -> PathBuf {
    Path::new(path).to_owned()
}
