//! What can be wrong with a stream that a filter reads. None of these is ever passed over in silence.

use crate::base::{Code, Coded, Error};

/// A stream that cannot be what was once written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// It ends before its own format says so.
    #[error("the {0} stream was cut short")]
    CutShort(&'static str),
    /// Something follows where its format says it has ended.
    #[error("bytes follow the end of the {0} stream")]
    Trailing(&'static str),
    /// Its own structure or checksum is wrong.
    #[error("the {filter} stream is damaged: {why}")]
    Broken {
        /// Whose stream.
        filter: &'static str,
        /// What the library says.
        why: String,
    },
    /// It does not begin with `Salted__`.
    #[error("the stream does not begin with \"Salted__\": it was not encrypted with a passphrase by openssl enc")]
    NotEncrypted,
    /// The padding after the last byte is wrong. CBC tells no more than this.
    #[error("the end of the stream does not decrypt: the passphrase is wrong, or the bytes were changed")]
    Padding,
}

impl Coded for Damage {
    fn code(&self) -> Code {
        match self {
            Damage::Padding => Code::WrongKey,
            _ => Code::BackupCorrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Damage::Padding => {
                Some("give the passphrase and the number of iterations it was encrypted with".to_owned())
            }
            _ => None,
        }
    }
}

/// A failure of libcrypto that has nothing to do with the data.
pub(super) fn libcrypto(cause: openssl::error::ErrorStack) -> Error {
    Error::new(Code::Internal, format!("libcrypto: {cause}"))
}
