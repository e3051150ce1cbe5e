//! Registered errors as D-Bus errors `org.neo4jbackup.Error.<Variant>`, and back, so that a command's exit status is
//! the same over the bus as without it.

use crate::base::{Code, Error};
use zbus::message::{Header, Message};
use zbus::names::ErrorName;
use zbus::{DBusError, fdo};

/// Separates the message from the hint in an error's text.
const HINT: &str = "\nhint: ";

/// An [`Error`] on its way over the bus.
#[derive(Debug)]
pub struct BusError {
    name: String,
    text: String,
}

impl From<Error> for BusError {
    fn from(error: Error) -> Self {
        BusError { name: error.code().dbus_name(), text: format!("{}{HINT}{}", error.message(), error.hint()) }
    }
}

impl DBusError for BusError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(&self.text))
    }

    fn name(&self) -> ErrorName<'_> {
        // Names are made of registered variants only; a test looks at each.
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

/// What activation over the bus says of a unit that is not enabled.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The error that a failed call or connection means to the client. `doing` says what was tried.
pub fn from_bus(doing: &str, cause: zbus::Error) -> Error {
    match cause {
        zbus::Error::MethodError(name, text, _) if name.as_str() == NO_SUCH_UNIT => {
            Error::new(Code::BusUnavailable, format!("{doing}: the agent does not run: {}", text.unwrap_or_default()))
                .with_hint(
                    "`systemctl enable --now neo4j-backupd` starts it; `neo4j-backupctl --direct` works without it",
                )
        }
        zbus::Error::MethodError(name, text, _) => registered(name.as_str(), text.as_deref().unwrap_or_default())
            .unwrap_or_else(|| unreadable(doing, &format!("{name}: {}", text.unwrap_or_default()))),
        zbus::Error::FDO(cause) => from_standard(doing, &cause),
        other => Error::new(Code::BusUnavailable, format!("{doing}: {other}")),
    }
}

/// Splits a text made by [`BusError`] again.
pub fn registered(name: &str, text: &str) -> Option<Error> {
    let code = Code::ALL.iter().copied().find(|code| code.dbus_name() == name)?;
    Some(match text.rsplit_once(HINT) {
        Some((message, hint)) => Error::new(code, message).with_hint(hint),
        None => Error::new(code, text),
    })
}

fn from_standard(doing: &str, cause: &fdo::Error) -> Error {
    match cause {
        fdo::Error::AccessDenied(text)
        | fdo::Error::AuthFailed(text)
        | fdo::Error::InteractiveAuthorizationRequired(text) => {
            Error::new(Code::NotAuthorised, format!("{doing}: {text}"))
        }
        fdo::Error::UnknownMethod(_)
        | fdo::Error::UnknownObject(_)
        | fdo::Error::UnknownInterface(_)
        | fdo::Error::UnknownProperty(_)
        | fdo::Error::InvalidArgs(_) => unreadable(doing, &cause.to_string()),
        other => Error::new(Code::BusUnavailable, format!("{doing}: {other}")),
    }
}

fn unreadable(doing: &str, text: &str) -> Error {
    Error::new(Code::BusUnavailable, format!("{doing}: {text}"))
        .with_hint("agent and client do not understand each other; after an upgrade: `systemctl restart neo4j-backupd`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registered_error_keeps_its_name_and_exit_status() {
        for &code in Code::ALL {
            let sent = BusError::from(Error::new(code, "writing x: two\nlines").with_hint("do y"));
            assert!(ErrorName::try_from(sent.name.as_str()).is_ok(), "{}", sent.name);
            let received = registered(sent.name().as_str(), &sent.text).expect("known");
            assert_eq!((received.code(), received.code().exit()), (code, code.exit()));
            assert_eq!((received.message(), received.hint()), ("writing x: two\nlines", "do y"));
        }
        assert!(registered("org.neo4jbackup.Error.Nonsense", "").is_none());
        assert!(registered("org.freedesktop.DBus.Error.Failed", "").is_none());
    }
}
