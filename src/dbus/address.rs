//! Which bus to speak on.

use crate::base::{Code, Error, Result};
use zbus::connection::Builder;

/// A message bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BusAddress {
    /// The host's system bus; `DBUS_SYSTEM_BUS_ADDRESS` moves it, as everywhere.
    #[default]
    System,
    /// A D-Bus address: `unix:path=/run/user/0/bus`.
    At(String),
    /// The system bus of another host, reached over ssh: `[USER@]HOST`.
    Host(String),
}

impl BusAddress {
    /// The bus a command line asks for.
    pub fn chosen(host: Option<&str>, address: Option<&str>) -> Result<Self> {
        match (host, address) {
            (Some(host), None) => Ok(BusAddress::Host(checked_host(host)?.to_owned())),
            (None, Some(address)) => Ok(BusAddress::At(address.to_owned())),
            (None, None) => Ok(BusAddress::System),
            (Some(_), Some(_)) => Err(Error::new(Code::Usage, "--host and --bus were both given")
                .with_hint("--host means the system bus of another host")),
        }
    }

    pub(super) fn builder(&self) -> Builder<'static> {
        match self {
            BusAddress::System => Builder::system(),
            BusAddress::At(address) => Builder::address(address.as_str()),
            // What systemctl -H does: ssh, no terminal, and systemd's bridge at the other end.
            BusAddress::Host(host) => Builder::address(
                format!("unixexec:path=ssh,argv1=-xT,argv2=--,argv3={},argv4=systemd-stdio-bridge", escape(host))
                    .as_str(),
            ),
        }
    }

    /// Says in a message which bus it is.
    pub fn describe(&self) -> String {
        match self {
            BusAddress::System => "the system bus".to_owned(),
            BusAddress::At(address) => format!("the bus at {address}"),
            BusAddress::Host(host) => format!("the system bus of {host}"),
        }
    }
}

fn checked_host(host: &str) -> Result<&str> {
    let good = |c: char| c.is_ascii_alphanumeric() || "@.-_:[]%".contains(c);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(good) {
        return Err(Error::new(Code::Usage, format!("{host:?} is not [USER@]HOST")));
    }
    Ok(host)
}

/// D-Bus addresses keep `[-0-9A-Za-z_/.\*]` and write every other byte as `%XX`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'/' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02x}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_cannot_smuggle_options_into_ssh_or_the_address() {
        for bad in ["-oProxyCommand=x", "", "a b", "a,argv9=x", "a;b", "$(x)"] {
            assert!(BusAddress::chosen(Some(bad), None).is_err(), "{bad}");
        }
        assert_eq!(escape("root@db-1"), "root%40db-1");
        assert_eq!(BusAddress::chosen(Some("root@db-1"), None).ok(), Some(BusAddress::Host("root@db-1".to_owned())));
        assert!(BusAddress::chosen(Some("a"), Some("unix:path=/x")).is_err());
    }
}
