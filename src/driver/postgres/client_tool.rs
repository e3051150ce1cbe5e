//! PostgreSQL's client programs: how they are told where the server is, and as whom they log in.

use super::connection::Address;
use super::tools::Tools;
use crate::base::process::{OsUser, Tool};
use crate::base::{Error, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The program, with the server's address; whoever runs it must be let in without a password.
pub(crate) fn addressed(name: &str, address: &Address, tools: &Tools) -> Tool {
    let port = address.port.to_string();
    tools.tool(name).arg("--no-password").args(["-h", &address.host, "-p", &port, "-U", &address.user])
}

/// The same with the account that it runs as; `owner` owns the cluster, and `workspace` takes a file with the password where
/// one is needed.
pub(crate) fn client_tool(
    name: &str,
    address: &Address,
    tools: &Tools,
    owner: &OsUser,
    workspace: &Path,
) -> Result<Tool> {
    let tool = addressed(name, address, tools);
    if let Some(path) = &address.password_file {
        return Ok(tool.env("PGPASSFILE", password_file(path, workspace)?));
    }
    if nix::unistd::geteuid().is_root() {
        // Peer authentication wants the account that bears the role's name; else the cluster's owner may most.
        return Ok(tool.user(OsUser::of_name(&address.user).unwrap_or_else(|_| owner.clone())));
    }
    Ok(tool)
}

/// A connection string that names a database whatever its name looks like.
pub(crate) fn to_database(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// libpq takes a password from a file of its own format only (a variable could be read by others): one line
/// `host:port:database:user:password` with `\` and `:` escaped.
fn password_file(from: &Path, workspace: &Path) -> Result<PathBuf> {
    let secret = crate::base::secret::read_first_line(from)?;
    let escaped = secret.expose_text()?.replace('\\', "\\\\").replace(':', "\\:");
    let line = zeroize::Zeroizing::new(format!("*:*:*:*:{escaped}\n"));
    let path = workspace.join("pgpass");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()))
        .map_err(|cause| Error::io("writing", &path, cause))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_colons_is_escaped() {
        let place = tempfile::tempdir().expect("tempdir");
        let from = place.path().join("password");
        crate::base::atomic_file::write(&from, b"a:b\\c\n", 0o600).expect("write");
        for _ in 0..2 {
            let path = password_file(&from, place.path()).expect("pgpass");
            assert_eq!(std::fs::read_to_string(path).expect("read"), "*:*:*:*:a\\:b\\\\c\n");
        }
    }

    #[test]
    fn a_database_is_named_whatever_its_name() {
        assert_eq!(to_database("metrics"), "dbname='metrics'");
        assert_eq!(to_database(r"it's \ host=x"), r"dbname='it\'s \\ host=x'");
    }
}
